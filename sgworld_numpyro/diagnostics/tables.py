"""How the diagnostics print numbers, and the colours that they draw in."""

import numpy as np

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "0.35"
SHOWN_ROWS = 12  # of a table with a row a coordinate


def with_error(value, error):
    """A number with as many digits as its error deserves."""
    if not np.isfinite(error) or not error > 0 or max(abs(value), error) < 1e-3:
        return f"{value:.2g} ± {error:.1g}"
    digits = max(0, int(np.ceil(-np.log10(error * 1.05))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def shortened(names, most=6):
    """The first few names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def columns(rows, header):
    """A table that lines up: the first column to the left, the others to the right."""
    rows = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    )


def worst_first(badness, names):
    """Numbers of the coordinates to show, worst first, and a line that says how many are not."""
    order = np.argsort(-np.asarray(badness), kind="stable")[:SHOWN_ROWS]
    hidden = len(names) - len(order)
    return order, f"\nand {hidden} coordinates more, which look better" if hidden else ""
