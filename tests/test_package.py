"""What an installation gives: types, one version, rooms that open by themselves, and the diagnostics' command."""

import os
import re
import runpy
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import arviz  # noqa: F401 -- ArviZ 0.23 itself needs matplotlib, which a test takes away
import numpy as np
import pytest
import xarray as xr

import sgworld_numpyro
from sgworld_numpyro.diagnostics.__main__ import main
from tests.test_structure import ROOMS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPENED = ("datasets", "diagnostics", "landscape", "linear_gaussian", "nonequilibrium", "testing")


def python(*arguments):
    """Run this interpreter on the package of this checkout, away from it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd="/", check=False
    )


def test_rooms_open_after_a_bare_import():
    lines = [
        "import sys, sgworld_numpyro as package",
        "assert set(opened) <= set(dir(package))",
        "assert not {'sgworld_numpyro.diagnostics', 'sgworld_numpyro.testing', 'arviz'} & set(sys.modules)",
        "print(*(getattr(package, name).__name__ for name in opened))",
        "print(package.diagnostics.which_landscape.__name__)",
    ]
    done = python("-c", f"opened = {OPENED}\n" + "\n".join(lines))
    assert done.stderr == ""
    assert done.stdout.split() == [
        *(f"sgworld_numpyro.{name}" for name in OPENED),
        "sgworld_numpyro.diagnostics.which_landscape",
    ]


@pytest.mark.parametrize("room", [sgworld_numpyro, sgworld_numpyro.diagnostics], ids=lambda room: room.__name__)
def test_an_unknown_name_is_an_attribute_error(room):
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = room.nonsense


def test_the_version_is_that_of_the_metadata():
    from sgworld_numpyro.results.versions import package_versions

    assert re.fullmatch(r"\d+\.\d+.*", sgworld_numpyro.__version__)
    assert package_versions()["sgworld_numpyro_version"] == sgworld_numpyro.__version__


def test_a_source_tree_without_installation_says_that_it_does_not_know(monkeypatch):
    import importlib
    import importlib.metadata

    from sgworld_numpyro.results import versions

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patched:
        patched.setattr(importlib.metadata, "version", missing)
        importlib.reload(versions)
        assert versions.__version__ == "0+unknown"
    importlib.reload(versions)
    assert versions.__version__ == sgworld_numpyro.__version__


def test_the_citation_has_the_version_of_the_project():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    (version,) = re.findall(r"^version: (.*)$", citation, re.MULTILINE)
    assert version.strip('"') == PROJECT["version"]
    assert PROJECT["authors"] == [{"name": "sgworld_numpyro contributors"}]
    assert "sgworld_numpyro contributors" in citation


def test_types_are_declared():
    assert (Path(sgworld_numpyro.__file__).parent / "py.typed").exists()
    assert "Typing :: Typed" in PROJECT["classifiers"]


def test_imported_packages_are_declared():
    """Those that the package imports at the top of a module; what a function imports is an extra's."""
    imported = set()
    for path in (ROOT / "sgworld_numpyro").rglob("*.py"):
        imported |= set(re.findall(r"^(?:import|from) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    declared = {re.match(r"[\w-]+", line).group() for line in PROJECT["dependencies"]}
    assert imported - set(sys.stdlib_module_names) - {"sgworld_numpyro"} <= declared


def test_readme_stands_without_the_repository():
    """A relative link or picture is broken where an index shows the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)]*)\)", readme)
    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []


@pytest.fixture
def saved(tmp_path):
    """A run of independent draws."""
    path = tmp_path / "run.nc"
    x = np.random.default_rng(0).normal(size=(4, 100, 2))
    data = xr.Dataset({"w": (("chain", "draw", "w_dim_0"), x)})
    data.to_netcdf(path, group="posterior", engine="h5netcdf")
    return path


as_main = partial(runpy.run_module, alter_sys=True)


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (as_main, "sgworld_numpyro.diagnostics"),
        (as_main, "sgworld_numpyro.diagnostics.what_did_it_cost"),
        (as_main, "diagnostics"),
        (runpy.run_path, str(ROOT / "diagnostics" / "what_did_it_cost.py")),
    ],
    ids=["package", "module", "folder", "script"],
)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # other tests have imported it
def test_a_question_is_asked_by_every_command(run, name, saved, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    question = [] if "what_did_it_cost" in name else ["what_did_it_cost"]
    monkeypatch.setattr(sys, "argv", [name, *question, str(saved), "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        run(name, run_name="__main__")
    assert not ended.value.code
    assert "Verdict: " in capsys.readouterr().out
    assert (tmp_path / "run_what_did_it_cost.png").exists()


@pytest.mark.parametrize("question", ["what_did_it_cost", "all"])
def test_verdicts_are_given_without_matplotlib(question, saved, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([question, str(saved), "--quick", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "Verdict: " in printed.out
    assert "sgworld_numpyro[figures]" in printed.err
    assert list(tmp_path.glob("*.png")) == []
    if question == "all":
        assert "data:image" not in (tmp_path / "run_diagnostics.html").read_text(encoding="utf-8")


def test_every_question_has_a_script_of_its_name():
    scripts = {path.stem for path in (ROOT / "diagnostics").glob("*.py")} - {"__init__", "__main__"}
    assert scripts == set(sgworld_numpyro.diagnostics.QUESTIONS)


def test_contributing_names_what_is_there():
    """Every room, in its order, and no path that is not."""
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = contributing[contributing.index("from the bottom up they are") : contributing.index("A room imports from")]
    assert tuple(re.findall(r"`(\w+)`", listed)) == ROOMS
    section = contributing[contributing.index("### Where things are") : contributing.index("## Tests")]
    paths = set(re.findall(r"`((?!docs/)\w+(?:/\w+)*(?:/|\.py))`", section))
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / "sgworld_numpyro" / path).exists()] == []
