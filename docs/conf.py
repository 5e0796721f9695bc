"""The site: Sphinx with executed MyST pages. ``make docs`` builds it, without the network."""

import importlib.metadata
import os
import re
import shutil
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build"

project = "sgworld_numpyro"
author = "sgworld_numpyro contributors"
copyright = author
release = version = importlib.metadata.version("sgworld_numpyro")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.intersphinx", "sphinx_copybutton"]
exclude_patterns = ["conf.py", "inventories", "_build"]
suppress_warnings = ["config.cache"]  # the pickled configuration; nothing of the pages

# Pages: MyST markdown, whose {code-cell} blocks run once and are cached until they change.
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(BUILD / "docs-cache")
nb_execution_timeout = 300
nb_execution_in_temp = True
nb_merge_streams = True
nb_execution_show_tb = True
os.environ["JAX_PLATFORMS"] = "cpu"  # pages show the same on every machine
os.environ["CI"] = "1"  # NumPyro shows no progress bar then
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # the widgets of a bar that is not shown

# The reference: docstrings in Google style, types where a reader looks for them, in the signature.
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
add_module_names = False
toc_object_entries_show_parents = "hide"

nitpicky = True
nitpick_ignore = [("py:class", "sgworld_numpyro.model.target.Target")]  # a model as the engine sees it: internal
nitpick_ignore_regex = [
    ("py:class", r"'.*|jaxtyping\..*"),  # "chain draw dim" in an annotation is a shape; jaxtyping has no inventory
]

# Names of other packages, in inventories kept as text: the build asks no network.
SITES = {
    "python": "https://docs.python.org/3/",
    "numpy": "https://numpy.org/doc/stable/",
    "jax": "https://docs.jax.dev/en/latest/",
    "numpyro": "https://num.pyro.ai/en/stable/",
    "arviz": "https://python.arviz.org/en/stable/",
    "xarray": "https://docs.xarray.dev/en/stable/",
}


def inventory(name):
    """The path of an ``objects.inv`` made of the lines in ``inventories/NAME.txt``."""
    header = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n"
    header += "# The remainder of this file is compressed using zlib.\n"
    path = BUILD / "inventories" / f"{name}.inv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.encode() + zlib.compress((HERE / "inventories" / f"{name}.txt").read_bytes()))
    return str(path)


intersphinx_mapping = {name: (url, inventory(name)) for name, url in SITES.items()}


def mathjax():
    """Copy MathJax, one file that needs no other, from the package that has it to where Sphinx takes static files."""
    target = BUILD / "docs-static"
    target.mkdir(parents=True, exist_ok=True)
    for file in importlib.metadata.files("django-static-mathjax") or []:
        if str(file).endswith(("es5/tex-svg-full.js", "static/mathjax/LICENSE")):
            shutil.copy(file.locate(), target / f"mathjax-{file.name}")
    return target


html_static_path = ["_static", str(mathjax())]
mathjax_path = "mathjax-tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False}}  # the menu's parts lie in other files

html_theme = "sphinx_book_theme"
html_title = "sgworld_numpyro"
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navigation_with_keys": False,
    "navbar_persistent": [],  # the search is in the sidebar
}
copybutton_exclude = ".linenos, .gp, .go"


PROPERTIES = ("property", "attribute")


def hide_colons(app, what, name, obj, options, lines):
    """Of a property napoleon takes what comes before a colon for its type; two colons it leaves alone."""
    if what in PROPERTIES and lines:
        lines[0] = lines[0].replace(": ", ":: ")


def as_plain_text(app, what, name, obj, options, lines):
    """In docstrings |x| is a modulus, and not a substitution of reStructuredText."""
    if what in PROPERTIES:
        lines[:] = [line.replace(":: ", ": ") for line in lines]
    for number, line in enumerate(lines):
        parts = re.split(r"(``.*?``)", line)
        parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
        lines[number] = "".join(parts)


def setup(app):
    """Napoleon comes between the two."""
    app.connect("autodoc-process-docstring", hide_colons, priority=400)
    app.connect("autodoc-process-docstring", as_plain_text, priority=600)
