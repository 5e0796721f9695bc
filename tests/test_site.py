"""The site's sources: every public name is in the reference, and every exception in the table of troubles."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import sgworld_numpyro
from docs.check_links import faults

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
REFERENCE = "\n".join(page.read_text(encoding="utf-8") for page in sorted((DOCS / "api").glob("*.md")))
NAMED = set(re.findall(r"auto(?:class|function|exception):: sgworld_numpyro\.([\w.]+)", REFERENCE))
WHOLE = set(re.findall(r"automodule:: sgworld_numpyro\.([\w.]+)", REFERENCE))  # each with all that it exports
ROOMS = ("subsampling", "integrators", "gradients", "preconditioners", "learning_coefficient")
CONSTANTS = {"SCHEMES", "INTEGRATORS", "Gradient", "Potential", "Redraws", "__version__"}  # and types of arguments


def exported(room):
    module = importlib.import_module(f"sgworld_numpyro.{room}" if room else "sgworld_numpyro")
    return set(module.__all__) - CONSTANTS


@pytest.mark.parametrize("room", ["", *ROOMS], ids=lambda room: room or "package")
def test_every_public_name_is_in_the_reference(room):
    documented = {name.rpartition(".")[2] for name in NAMED}
    assert exported(room) - documented == set()


@pytest.mark.parametrize("room", sgworld_numpyro._LOADED_AT_FIRST_USE)
def test_rooms_that_open_by_themselves_are_in_the_reference(room):
    assert room in WHOLE
    assert exported(room)


def test_the_reference_names_what_is_there():
    for name in NAMED:
        module, _, attribute = f"sgworld_numpyro.{name}".rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def exceptions():
    """Every exception and warning that a module of the package defines, private ones left out."""
    for path in sorted((ROOT / "sgworld_numpyro").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                bases = {ast.unparse(base) for base in node.bases}
                if any(base.endswith(("Error", "Warning", "Exception")) for base in bases):
                    yield node.name, bases


def test_every_exception_is_in_the_page_of_troubles():
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    found = dict(exceptions())
    assert len(found) >= 8
    of_a_named_kind = {name for name, bases in found.items() if any(base in page for base in bases & set(found))}
    assert {name for name in found if name not in page} <= of_a_named_kind


def test_every_page_is_on_the_site():
    """In a table of contents; Sphinx says so too, but only where it is installed."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    assert {page.stem for page in DOCS.glob("*.md")} - {"index"} <= set(re.findall(r"^[\w/]+$", index, re.MULTILINE))


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ('<a href="there.html#place">', None),
        ('<a href="https://elsewhere.org/">', None),  # a link may lead elsewhere
        ('<img src="data:image/png;base64,AAAA">', None),
        ('<a href="nowhere.html">', "links to nowhere.html, which is not there"),
        ('<a href="there.html#nothing">', "links to there.html#nothing, which has no such place"),
        ('<script src="https://elsewhere.org/mathjax.js">', "which is not in the site"),
        ('<link rel="stylesheet" href="missing.css">', "loads missing.css"),
    ],
)
def test_links_that_lead_nowhere_are_found(written, fault, tmp_path):
    (tmp_path / "there.html").write_text('<h1 id="place">')
    (tmp_path / "here.html").write_text(written)
    found = faults(tmp_path)
    assert len(found) == (fault is not None)
    assert all(fault in one for one in found)


def test_a_site_without_pages_is_a_fault(tmp_path):
    assert faults(tmp_path)
