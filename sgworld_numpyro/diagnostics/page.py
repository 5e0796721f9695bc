"""One self-contained HTML page of all verdicts on a run."""

import base64
import html
import io
from typing import NamedTuple

from sgworld_numpyro.diagnostics.command import question
from sgworld_numpyro.diagnostics.verdicts import Verdict

ANSWERS = {True: "yes", False: "no", None: "–"}
OPEN = ("How", "What", "Which")  # questions that want more than a yes or no
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
h1, h2 { line-height: 1.25; } a { color: inherit; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .45rem .8rem .45rem 0; border-top: 1px solid #ddd; }
td:nth-child(2) { font-weight: 600; white-space: nowrap; }
pre { background: #f6f6f6; padding: .8rem 1rem; overflow-x: auto; font-size: .85rem; line-height: 1.4; }
figure { margin: 1rem 0; overflow-x: auto; }
img { max-width: 100%; height: auto; display: block; }
@media (max-width: 40rem) { img { max-width: none; width: 44rem; } }  /* scrolled, not shrunk */
.run, .note { color: #555; }
.good { color: #00664b; } .bad { color: #a33c00; }
td:nth-child(2) span { display: block; font-weight: 400; }
@media (max-width: 40rem) { td:nth-child(2) { white-space: normal; } }
"""


class Section(NamedTuple):
    """A question, its verdict, and its figure as PNG, None where there is none."""

    module: object
    verdict: Verdict
    figure: bytes | None


def figure_of(module, run, verdict):
    """The module's figure as PNG, None where there is nothing to draw."""
    if len(verdict.numbers) < 2:
        return None
    picture = io.BytesIO()
    module.draw(run, verdict, picture)
    return picture.getvalue()


def html_page(title, run, sections):
    """The page's text."""
    title, run = html.escape(title), html.escape(run)
    summary = "\n".join(_row(section) for section in sections)
    details = "\n".join(_details(section) for section in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: diagnostics</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p class="run">{run}</p>
<table>
<tr><th>question</th><th>answer</th><th>verdict</th></tr>
{summary}
</table>
{details}
</body>
</html>
"""


def _set(text):
    """Text as HTML, with the one exponent there is set as such."""
    return html.escape(text).replace("e^{−σ}", "e<sup>−σ</sup>")


def _judged(section):
    """Whether the answer is good or bad news, where it is either: see ``WANTED`` in the package."""
    wanted, holds = getattr(section.module, "WANTED", True), section.verdict.holds
    if None in (wanted, holds):
        return ""
    word = "good" if wanted == holds else "bad"
    return f'<span class="{word}">{word}</span>'


def _name(section):
    return section.module.__name__.rpartition(".")[2]


def _title(section):
    first = question(section.module)
    return _set(first[: first.index("?") + 1])


def _row(section):
    word = "–" if question(section.module).startswith(OPEN) else ANSWERS[section.verdict.holds]
    link = f'<a href="#{_name(section)}">{_title(section)}</a>'
    return f"<tr><td>{link}</td><td>{word}{_judged(section)}</td><td>{_set(section.verdict.sentence)}</td></tr>"


def _details(section):
    verdict = section.verdict
    parts = [f'<h2 id="{_name(section)}">{_title(section)}</h2>', f"<p>{_set(verdict.sentence)}</p>"]
    if len(verdict.numbers) > 1:
        parts.append(f"<pre>{_set(section.module.table(verdict))}</pre>")
    parts += [f'<p class="note">{_set(note)}</p>' for note in verdict.numbers.get("notes", [])]
    if section.figure is not None:
        data = base64.b64encode(section.figure).decode()
        shown = html.escape((section.module.draw.__doc__ or "").splitlines()[0])
        alt = f"{shown} The verdict: {html.escape(verdict.sentence)}"
        parts.append(f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"></figure>')
    return "\n".join(parts)
