"""Ask one question of a saved run by its name, or all of them."""

import importlib
import sys

from diagnostics import QUESTIONS
from diagnostics._command import answer, described, fail, parse, question, report, write_json
from diagnostics._common import Verdict, as_run, load
from diagnostics._page import Section, figure_of, page

USAGE = """usage: python -m diagnostics QUESTION RUN [options]
       python -m diagnostics all RUN [options]    every question, and one HTML page

Questions, of a run that ArviZ saved as netCDF:
{questions}

Options: python -m diagnostics QUESTION --help"""


def module_of(name):
    return importlib.import_module(f"diagnostics.{name}")


def usage():
    width = max(map(len, QUESTIONS))
    return USAGE.format(questions="\n".join(f"  {n:<{width}}  {question(module_of(n))}" for n in QUESTIONS))


def ask(module, run, options) -> Section:
    """The verdict and the figure; where the package refuses the draws, why, so that the other questions go on."""
    try:
        verdict = answer(module, run, options)
    except ValueError as reason:
        return Section(module, Verdict(None, f"cannot tell: {reason}", {"notes": []}), None)
    return Section(module, verdict, figure_of(module, run, verdict))


def ask_all(argv):
    options = parse("Every question, one HTML page.", argv, prog="python -m diagnostics all")
    try:
        run = as_run(load(options.run), options.var_names)
    except ValueError as error:
        return fail(error)
    try:
        print(f"{options.run}: {described(run)}")
        sections = []
        for name in QUESTIONS:
            section = ask(module_of(name), run, options)
            sections.append(section)
            print(f"\n{question(section.module)}\n\n{report(section.module, section.verdict)}", flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / f"{options.run.stem}_diagnostics.html"
        path.write_text(page(options.run.name, described(run), sections), encoding="utf-8")
        verdicts = {name: s.verdict._asdict() for name, s in zip(QUESTIONS, sections, strict=True)}
        write_json(options.json, {"run": str(options.run), **verdicts})
    except OSError as error:
        return fail(error)
    except ModuleNotFoundError as error:
        return fail(f"{error}; figures want the package's extra: pip install 'sgworld_numpyro[examples]'")
    print(f"\nPage: {path}")
    return 0


def main(argv=None):
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    name, *rest = argv
    if name == "all":
        return ask_all(rest)
    if name not in QUESTIONS:
        return fail(f"there is no question {name!r}; choose one of {', '.join(QUESTIONS)}, or all")
    return module_of(name).main(rest)


if __name__ == "__main__":
    sys.exit(main())
