"""The command line of the diagnostics: options, what is printed, the file of numbers, exit status."""

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from sgworld_numpyro.diagnostics.saved_run import as_run, load
from sgworld_numpyro.diagnostics.verdicts import CannotTell, Verdict

COMMAND = "python -m sgworld_numpyro.diagnostics"


def plain(value):
    """Numbers as JSON has them: no arrays, and null for what is not finite."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def answer(module, run, options) -> Verdict:
    """The module's verdict; "cannot tell" if it has none on this run.

    Raises:
        ValueError: from the package, where something in the draws makes a measure impossible.
    """
    try:
        return module.examine(run, seed=options.seed, quick=options.quick)
    except CannotTell as reason:
        return reason.verdict()


def report(module, verdict):
    """What is printed below the heading."""
    lines = [module.table(verdict)] if len(verdict.numbers) > 1 else []
    return "\n\n".join([*lines, *verdict.numbers.get("notes", []), f"Verdict: {verdict.sentence}"])


def parse(description, argv, prog=None):
    """The options that every diagnostic takes."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("run", type=Path, help="a run that ArviZ saved as netCDF")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="where figures go")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to FILE as well")
    parser.add_argument("--var-names", metavar="A,B", help="sites to look at, by default all")
    parser.add_argument("--quick", action="store_true", help="fewer surrogates and grid points")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    options.var_names = options.var_names and [name.strip() for name in options.var_names.split(",")]
    return options


def write_json(path, numbers):
    """Write numbers to a file; nothing if ``path`` is None."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plain(numbers), indent=2) + "\n")


def fail(error):
    """One line on the error stream and exit status 2."""
    print(f"error: {error}", file=sys.stderr)
    return 2


def question(module):
    """The question that a module asks: the first line of its docstring."""
    return module.__doc__.splitlines()[0]


def figures_wanted() -> bool:
    """Whether figures can be drawn; where matplotlib is missing, the error stream says what installs it."""
    found = find_spec("matplotlib") is not None
    if not found:
        print("no figures without matplotlib: pip install 'sgworld_numpyro[figures]'", file=sys.stderr)
    return found


def main(module, argv=None):
    """Ask one question of the run that the command line names; the exit status."""
    name = Path(module.__file__).stem
    options = parse(question(module), argv, prog=f"{COMMAND} {name}")
    try:
        run = as_run(load(options.run), options.var_names)
        verdict = answer(module, run, options)
    except ValueError as error:
        return fail(error)
    try:
        print(f"{question(module)}\n{options.run}: {described(run)}\n\n{report(module, verdict)}")
        write_json(options.json, {"run": str(options.run), name: verdict._asdict()})
        if len(verdict.numbers) > 1 and figures_wanted():
            options.out.mkdir(parents=True, exist_ok=True)
            path = options.out / f"{options.run.stem}_{name}.png"
            module.draw(run, verdict, path)
            print(f"Figure: {path}")
    except OSError as error:
        return fail(error)
    return 0


def described(run):
    """A run's size and settings in one line."""
    chains, draws, dim = run.x.shape
    settings = [str(run.attrs[key]) for key in ("scheme", "integrator") if key in run.attrs]
    step = [f"step size {run.attrs['step_size']:.3g}"] if isinstance(run.attrs.get("step_size"), float) else []
    sizes = zip((chains, draws, dim), ("chain", "draw", "coordinate"), strict=True)
    return ", ".join([*(f"{size} {name}{'s' * (size != 1)}" for size, name in sizes), *settings, *step])
