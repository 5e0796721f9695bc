"""The package's shape: imports go only down the floors, and every public name says what it is.

Source files are parsed and never imported, so a floor's rule holds for lazy and type-only imports as well.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "sgworld_numpyro"
ROOT = Path(__file__).resolve().parents[1] / PACKAGE

# From the bottom up. A folder or a file at the package's front is a room; it imports from itself and from rooms below.
ROOMS = (
    "randomness",
    "schedules",
    "subsampling",
    "preconditioners",
    "gradients",
    "integrators",
    "linear_gaussian",
    "datasets",
    "nonequilibrium",
    "sources",
    "model",
    "landscape",
    "chain",
    "tuning",
    "options",
    "kernel",
    "devices",
    "store",
    "results",
    "runs",
    "extrapolation",
    "learning_coefficient",
    "diagnostics",
    "testing",
)
MAX_FILES_AT_FRONT = 8


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


def room(name: str) -> str:
    """The room that a dotted name lies in; '' is the package's front."""
    return name.split(".")[0]


def violations(root: Path, name: str) -> list[str]:
    """What module `name` imports against the rule, one sentence each."""
    importer = room(name)
    if not importer:
        return []  # the package's front imports from every room
    if importer not in ROOMS:
        return [f"{name}: `{importer}` stands on no floor; add it to ROOMS in {Path(__file__).name}"]
    wrong = []
    for target, line in imports(root, name):
        imported = room(target)
        if not imported:
            wrong.append(f"{name}:{line} imports from the package's front; name the module instead")
        elif imported not in ROOMS or ROOMS.index(imported) > ROOMS.index(importer):
            wrong.append(f"{name}:{line} imports {target}, which stands no lower")
    return wrong


def circle(root: Path) -> list[str]:
    """Modules that import each other in a circle, if there are any."""
    below = {name: {target for target, _ in imports(root, name)} - {name} for name in sources(root)}
    while below:
        bottom = [name for name, targets in below.items() if not targets & below.keys()]
        if not bottom:
            return sorted(below)
        for name in bottom:
            del below[name]
    return []


def definitions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """A module's own functions and classes."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return [node for node in tree.body if isinstance(node, kinds)]


def undocumented(path: Path) -> list[str]:
    """What lacks a docstring among a module's public functions and classes and the module itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    missing = [] if ast.get_docstring(tree) else ["the module itself"]
    return missing + [
        node.name for node in definitions(path) if not node.name.startswith("_") and not ast.get_docstring(node)
    ]


def is_public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split("."))


@pytest.mark.parametrize("name", sources(ROOT), ids=lambda name: name or PACKAGE)
def test_imports_go_downwards(name):
    assert violations(ROOT, name) == []


def test_nothing_imports_itself_on_a_way_around():
    assert circle(ROOT) == []


@pytest.mark.parametrize("name", [name for name in sources(ROOT) if is_public(name)], ids=lambda name: name or PACKAGE)
def test_public_names_are_documented(name):
    assert undocumented(sources(ROOT)[name]) == []


def test_few_files_lie_at_the_front():
    assert len([path for path in ROOT.iterdir() if path.is_file() and path.suffix == ".py"]) <= MAX_FILES_AT_FRONT


def test_every_module_has_a_name_of_its_own():
    shared = {"", "protocol", "__main__"}  # the front of a room, what its members are, and its command
    names = Counter(name.split(".")[-1] for name in sources(ROOT))
    assert [name for name, count in names.items() if count > 1 and name not in shared] == []


def test_no_two_classes_share_a_name():
    classes = Counter(
        node.name for path in sources(ROOT).values() for node in definitions(path) if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in classes.items() if count > 1 and not name.startswith("_")] == []


def test_no_function_hides_its_module():
    """`import sgworld_numpyro.a.b as b` gives the module, whatever the package a exports."""
    hidden = []
    for name, path in sources(ROOT).items():
        defined = {node.name for node in definitions(path)}
        if "." in name and name.split(".")[-1] in defined:
            hidden.append(name)
    assert hidden == []


def test_nonequilibrium_serves_any_chain():
    """It never reaches the kernel, not even through the modules that it imports."""
    modules = sources(ROOT)
    reached: set[str] = set()
    pending = {name for name in modules if room(name) == "nonequilibrium"}
    while pending:
        name = pending.pop()
        reached.add(name)
        pending |= {target for target, _ in imports(ROOT, name) if target} - reached
    assert not {"model", "chain", "kernel"} & {room(name) for name in reached}


def test_exported_names_exist():
    package = pytest.importorskip(PACKAGE)
    missing = [name for name in getattr(package, "__all__", ()) if not hasattr(package, name)]
    assert missing == []


@pytest.mark.parametrize(
    ("importer", "statement", "allowed"),
    [
        ("kernel", "from .chain.engine import step", True),
        ("kernel", "from sgworld_numpyro import model", True),
        ("results.run_attributes", "import sgworld_numpyro.kernel", True),
        ("chain.engine", "from ..subsampling.protocol import Plate", True),
        ("chain.engine", "from .state import SGState", True),
        ("subsampling.cyclic", "from .protocol import Plate", True),
        ("subsampling.cyclic", "from ..integrators import BAOAB", False),
        ("schedules", "from .subsampling import cyclic", False),
        ("model.target", "from ..chain import engine", False),
        ("chain.engine", "def late():\n    from .. import kernel", False),
        ("nonequilibrium.currents", "from ..kernel import SGLD", False),
        ("kernel", "from .results import inference_data", False),
        ("kernel", "from . import SGLD", False),
        ("kernel", "import sgworld_numpyro", False),
        ("unheard_of", "import jax", False),
    ],
)
def test_the_rule_itself(tmp_path, importer, statement, allowed):
    write(tmp_path, {importer: statement})
    assert (violations(tmp_path, importer) == []) is allowed


def test_a_circle_is_found(tmp_path):
    write(tmp_path, {"chain.engine": "from .state import SGState", "chain.state": "from .engine import Engine"})
    assert circle(tmp_path) == ["chain.engine", "chain.state"]


def write(root, statements):
    """A package of all rooms, with some modules' only statements."""
    inside = ["subsampling.protocol", "subsampling.cyclic", "nonequilibrium.currents", "chain.engine", "chain.state"]
    everything = {"", *ROOMS, *inside, "model.target", "results.run_attributes", *statements}
    for name in everything:
        nested = any(other.startswith(f"{name}.") for other in everything)
        path = root.joinpath(*name.split("."))
        path = path / "__init__.py" if nested or not name else path.with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""A module."""\n{statements.get(name, "")}\n')


def test_a_missing_docstring_is_found(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("def public(): ...\n\n\ndef _private(): ...\n\n\nclass Public:\n    '''Documented.'''\n")
    assert undocumented(path) == ["the module itself", "public"]
