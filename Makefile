# A virtual environment, the demonstration, the tests. Needs make and Python >= 3.11 with venv and pip.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=
DOCS_ARGS ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -q
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs

# Figures are drawn to files: no display is needed.
export MPLBACKEND := Agg

# Runs on any Python, 2.7 included, so that an old one gets this message and not a syntax error.
define VERSION_CHECK
import sys
found = "%d.%d.%d" % sys.version_info[:3]
sys.exit(0 if sys.version_info >= (3, 11) else
    "error: sgworld_numpyro needs Python 3.11 or newer; $(PYTHON) is Python " + found + ".\n"
    "       Name a newer one, for example:  make $(MAKECMDGOALS) PYTHON=python3.11")
endef
export VERSION_CHECK

# An environment remembers its Python: a PYTHON named in the call must be of the same version.
define SAME_VERSION_CHECK
import sys
found, wanted = "%d.%d" % sys.version_info[:2], sys.argv[1]
sys.exit(0 if found == wanted else
    "error: $(VENV) was made with Python " + found + ", and PYTHON=$(PYTHON) is Python " + wanted + ".\n"
    "       Use another directory, for example:  make $(MAKECMDGOALS) PYTHON=$(PYTHON) VENV=.venv-py" + wanted.replace(".", ""))
endef
export SAME_VERSION_CHECK

.DEFAULT_GOAL := help
.PHONY: help install demo test lint docs bench accuracy clean check-python

help: ## print this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "Variables, given as NAME=value after the target:"
	@echo "  PYTHON=$(PYTHON)  the interpreter to build on, 3.11 or newer"
	@echo "  VENV=$(VENV)  where its virtual environment lies"
	@echo "  PYTEST_ARGS, DEMO_ARGS, DOCS_ARGS, BENCH_ARGS  passed on, as in  make test PYTEST_ARGS='-n 2 -k resume'"

install: $(STAMP) ## set up the virtual environment; the targets below do it by themselves

demo: $(STAMP) ## sample a small posterior and compare it with the exact one
	$(PY) examples/gaussian_mean.py $(DEMO_ARGS)

test: $(STAMP) ## run every test, the slow ones too
	$(PY) -m pytest $(PYTEST_ARGS)

lint: $(STAMP) ## check style, format and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

docs: $(DOCS_STAMP) ## build the site in build/site, run its pages and check its links; no network
	$(PY) -m sphinx -W -n --keep-going -q -d build/doctrees $(DOCS_ARGS) docs build/site
	$(PY) docs/check_links.py build/site

bench: $(STAMP) ## measure speed
	$(PY) benchmarks/speed.py $(BENCH_ARGS)

accuracy: $(STAMP) ## measure accuracy per gradient
	$(PY) benchmarks/accuracy_per_gradient.py $(BENCH_ARGS)

clean: ## remove the virtual environments, caches and build output; runs/ stays
	@if [ -d "$(VENV)" ] && [ ! -e "$(VENV)/pyvenv.cfg" ]; then \
		echo "error: $(VENV) is no virtual environment; it is left alone" >&2; exit 1; fi
	rm -rf "$(VENV)" .venv-py* .venv-peers build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

# The default PYTHON matters only while there is no environment; a named one is always checked.
check-python:
	@if [ -x "$(PY)" ] && [ "$(origin PYTHON)" = file ]; then exit 0; fi; \
	command -v "$(PYTHON)" >/dev/null || { \
		echo "error: no $(PYTHON) found; name a Python 3.11 or newer:  make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; \
		exit 1; }; \
	"$(PYTHON)" -c "$$VERSION_CHECK" && { [ ! -x "$(PY)" ] || \
		"$(PY)" -c "$$SAME_VERSION_CHECK" "$$("$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"; }

# The stamp goes first and comes back last: an install that stops half-way is begun again by the next call.
$(STAMP): pyproject.toml | check-python
	@rm -f $(STAMP)
	@"$(PY)" -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv "$(VENV)"
	@echo "installing into $(VENV): a few minutes the first time"
	@$(PIP) install -e '.[dev]'
	@touch $(STAMP)

$(DOCS_STAMP): $(STAMP)
	@$(PIP) install -e '.[docs]'
	@touch $(DOCS_STAMP)
