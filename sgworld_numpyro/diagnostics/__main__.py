"""Ask one question of a saved run by its name, or all of them."""

import importlib
import sys

from sgworld_numpyro.diagnostics import QUESTIONS
from sgworld_numpyro.diagnostics.command import (
    COMMAND,
    answer,
    described,
    fail,
    figures_wanted,
    parse,
    question,
    report,
    write_json,
)
from sgworld_numpyro.diagnostics.page import Section, figure_of, html_page
from sgworld_numpyro.diagnostics.saved_run import as_run, load
from sgworld_numpyro.diagnostics.verdicts import Verdict

USAGE = f"""usage: {COMMAND} QUESTION RUN [options]
       {COMMAND} all RUN [options]    every question, and one HTML page

Questions, of a run that ArviZ saved as netCDF:
{{questions}}

Options: {COMMAND} QUESTION --help"""


def module_of(name):
    """The module of a question."""
    return importlib.import_module(f"sgworld_numpyro.diagnostics.{name}")


def usage():
    """The help text, with every question."""
    width = max(map(len, QUESTIONS))
    return USAGE.format(questions="\n".join(f"  {n:<{width}}  {question(module_of(n))}" for n in QUESTIONS))


def ask(module, run, options, figures) -> Section:
    """The verdict and the figure; where the package refuses the draws, why, so that the other questions go on."""
    try:
        verdict = answer(module, run, options)
    except ValueError as reason:
        return Section(module, Verdict(None, f"cannot tell: {reason}", {"notes": []}), None)
    return Section(module, verdict, figure_of(module, run, verdict) if figures else None)


def ask_all(argv):
    """Every question of one run, printed and as one page; the exit status."""
    options = parse("Every question, one HTML page.", argv, prog=f"{COMMAND} all")
    try:
        run = as_run(load(options.run), options.var_names)
    except ValueError as error:
        return fail(error)
    try:
        print(f"{options.run}: {described(run)}")
        sections, figures = [], figures_wanted()
        for name in QUESTIONS:
            section = ask(module_of(name), run, options, figures)
            sections.append(section)
            print(f"\n{question(section.module)}\n\n{report(section.module, section.verdict)}", flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / f"{options.run.stem}_diagnostics.html"
        path.write_text(html_page(options.run.name, described(run), sections), encoding="utf-8")
        verdicts = {name: s.verdict._asdict() for name, s in zip(QUESTIONS, sections, strict=True)}
        write_json(options.json, {"run": str(options.run), **verdicts})
    except OSError as error:
        return fail(error)
    print(f"\nPage: {path}")
    return 0


def main(argv=None):
    """What the command line asks; the exit status."""
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
