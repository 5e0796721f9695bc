"""What a diagnostic answers."""

from typing import Any, NamedTuple


class Verdict(NamedTuple):
    """The answer to a question.

    Attributes:
        holds: yes, no, or None where the run cannot tell or the question has no yes.
        sentence: one line.
        numbers: every number that is printed, under stable keys, and "notes": what the reader should know.
    """

    holds: bool | None
    sentence: str
    numbers: dict[str, Any]


class CannotTell(Exception):
    """The question has no answer on this run, and why."""

    def verdict(self):
        return Verdict(None, f"cannot tell: {self}", {"notes": []})
