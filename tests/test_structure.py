"""The package's shape: imports go only down the floors, and every public name says what it is.

Source files are parsed and never imported, so a floor's rule holds for lazy and type-only imports as well.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "sgworld_numpyro"
ROOT = Path(__file__).resolve().parents[1] / PACKAGE

FLOORS = {
    "foundation": {"counter_rng"},
    "ground": {
        "target",
        "subsampling",
        "integrators",
        "gradients",
        "preconditioners",
        "schedules",
        "noise",
        "linear_gaussian",
        "datasets",
        "blocks",
    },
    "first": {"tuning", "nonequilibrium", "engine", "held_data"},
    "second": {"kernel"},
    "top": {"inference_data", "checkpoint", "extrapolation", "predictions"},
}
LEVEL = {module: level for level, modules in enumerate(FLOORS.values()) for module in modules}

# Private modules at the front, each a part of the module that it serves.
PART_OF = {
    "_kinetic": "linear_gaussian",
    "_orders": "linear_gaussian",
    "_stationary": "linear_gaussian",
    "dependence": "target",
    "explanation": "target",
    "handlers": "target",
    "validation": "target",
    "stability": "engine",
    "thermometer": "engine",
    "binding": "kernel",
    "caller": "kernel",
    "checks": "kernel",
    "consistency": "kernel",
    "partition": "kernel",
    "divergence": "kernel",
    "keeping": "kernel",
    "progress": "kernel",
    "state": "kernel",
    "tuned_start": "kernel",
    "tuning_report": "inference_data",
    "settings": "inference_data",
    "pointwise": "inference_data",
}

# Imports on one floor that are allowed all the same: (importing module, imported module).
SIDEWAYS = {
    ("target", "subsampling.protocol"),  # for the type Plate
    ("integrators", "preconditioners.protocol"),  # for the type of an argument
    ("integrators", "noise"),  # for the names of its laws
}


def sources(root: Path) -> dict[str, Path]:
    """Every module below `root` by its dotted name inside the package; the package itself is ''."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path, name: str) -> Iterator[tuple[str, int]]:
    """The package's modules that module `name` imports, with the line of each import."""
    modules = sources(root)
    path = modules[name]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            if node.level:
                package = [PACKAGE, *path.relative_to(root).parent.parts]
                base = package[: len(package) - node.level + 1] + base
            targets = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for target in targets:
            if target[0] == PACKAGE:
                inside = target[1:]
                # what is left of `from a.b import c` where c is no module is the module a.b
                while inside and ".".join(inside) not in modules:
                    inside = inside[:-1]
                yield ".".join(inside), node.lineno


def concept(name: str) -> str:
    """The part of the package that a dotted name belongs to; '' is the package's front."""
    front = name.split(".")[0]
    return PART_OF.get(front, front)


def violations(root: Path, name: str) -> list[str]:
    """What module `name` imports against the rule, one sentence each."""
    importer = concept(name)
    if not importer:
        return []  # the package's front imports from every floor
    if importer not in LEVEL:
        return [f"{name}: `{importer}` stands on no floor; add it to FLOORS or PART_OF in {Path(__file__).name}"]
    wrong = []
    for target, line in imports(root, name):
        imported = concept(target)
        if not imported:
            wrong.append(f"{name}:{line} imports from the package's front; name the module instead")
        elif imported == importer or (importer, target) in SIDEWAYS:
            continue
        elif LEVEL.get(imported, -1) >= LEVEL[importer]:
            wrong.append(f"{name}:{line} imports {target}, which stands no lower")
    return wrong


def undocumented(path: Path) -> list[str]:
    """What lacks a docstring among a module's public functions and classes and the module itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    missing = [] if ast.get_docstring(tree) else ["the module itself"]
    return missing + [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]


def is_public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split("."))


@pytest.mark.parametrize("name", sources(ROOT), ids=lambda name: name or PACKAGE)
def test_imports_go_downwards(name):
    assert violations(ROOT, name) == []


@pytest.mark.parametrize("name", [name for name in sources(ROOT) if is_public(name)], ids=lambda name: name or PACKAGE)
def test_public_names_are_documented(name):
    assert undocumented(sources(ROOT)[name]) == []


def test_nonequilibrium_serves_any_chain():
    """It never reaches the kernel, not even through the modules that it imports."""
    modules = sources(ROOT)
    reached: set[str] = set()
    pending = {name for name in modules if name.split(".")[0] == "nonequilibrium"}
    while pending:
        name = pending.pop()
        reached.add(name)
        pending |= {target for target, _ in imports(ROOT, name) if target} - reached
    assert "kernel" not in {name.split(".")[0] for name in reached}


def test_exported_names_exist():
    package = pytest.importorskip(PACKAGE)
    missing = [name for name in getattr(package, "__all__", ()) if not hasattr(package, name)]
    assert missing == []


@pytest.mark.parametrize(
    ("importer", "statement", "allowed"),
    [
        ("kernel", "from .engine import step", True),
        ("kernel", "from sgworld_numpyro import target", True),
        ("checkpoint", "import sgworld_numpyro.kernel", True),
        ("engine", "from .subsampling.protocol import Plate", True),
        ("target", "from .subsampling.protocol import Plate", True),
        ("subsampling.cyclic", "from .protocol import Plate", True),
        ("noise", "from .counter_rng import threefry", True),
        ("linear_gaussian", "from . import _orders", True),
        ("subsampling.cyclic", "from ..schedules import constant", False),
        ("target", "from .subsampling import cyclic", False),
        ("target", "from .subsampling.cyclic import Cyclic", False),
        ("noise", "from sgworld_numpyro.schedules import constant", False),
        ("counter_rng", "from . import noise", False),
        ("schedules", "from . import _orders", False),
        ("tuning", "from . import engine", False),
        ("engine", "def late():\n    from . import kernel", False),
        ("nonequilibrium.current", "from ..kernel import SGLD", False),
        ("kernel", "from . import inference_data", False),
        ("kernel", "from . import SGLD", False),
        ("kernel", "import sgworld_numpyro", False),
        ("unheard_of", "import jax", False),
    ],
)
def test_the_rule_itself(tmp_path, importer, statement, allowed):
    everything = [*LEVEL, *PART_OF, "subsampling.protocol", "subsampling.cyclic", "nonequilibrium.current"]
    for name in ["", *everything, importer]:
        nested = any(other.startswith(f"{name}.") for other in everything)
        path = tmp_path.joinpath(*name.split("."))
        path = path / "__init__.py" if nested or not name else path.with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""A module."""\n{statement}\n' if name == importer else '"""A module."""\n')
    assert (violations(tmp_path, importer) == []) is allowed


def test_a_missing_docstring_is_found(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("def public(): ...\n\n\ndef _private(): ...\n\n\nclass Public:\n    '''Documented.'''\n")
    assert undocumented(path) == ["the module itself", "public"]
