"""What ``sgworld_numpyro.extrapolation`` found of a run's step size, where the run stores it."""

from typing import NamedTuple

import numpy as np
from scipy.stats import t

from sgworld_numpyro.diagnostics.saved_run import SavedRun, stored_object
from sgworld_numpyro.diagnostics.tables import BLUE, GREEN, ORANGE, columns, with_error

SHIFT_TOLERANCE = 0.05  # posterior sds, of the mean
SHOWN, DRAWN = 6, 4
WANTED = (
    "names", "coordinates", "step_sizes", "mean", "mean_error", "variance", "variance_error", "extrapolated_mean",
    "extrapolated_mean_error", "extrapolated_variance", "extrapolated_variance_error", "mean_moved", "variance_moved",
    "p_value", "order", "num_chains",
)  # fmt: skip
COLORS = (BLUE, ORANGE, GREEN, "0.45")
LEVEL = 0.01


class Extrapolated(NamedTuple):
    """What is stored, relative to the extrapolated posterior; the coordinates that moved most first.

    Attributes:
        names: of the coordinates that are stored.
        total: how many coordinates there are.
        step_sizes: h, h/2 and 0.
        shift: of the mean from the extrapolated one, in posterior sds, shape (3, coordinates).
        shift_error: standard error of the mean at each step size, likewise.
        width: variance by the extrapolated one, likewise.
        width_error: its standard error.
        moved: standard errors that mean and variance moved by from h to h/2, shape (2, coordinates).
        p_value: of nothing having moved.
        order: of the bias in h.
        chains: of each run.
    """

    names: list[str]
    total: int
    step_sizes: np.ndarray
    shift: np.ndarray
    shift_error: np.ndarray
    width: np.ndarray
    width_error: np.ndarray
    moved: np.ndarray
    p_value: float
    order: float
    chains: int

    @property
    def negative(self):
        """Names of coordinates whose variance is extrapolated to nothing or less: h is too large for that."""
        return [name for name, width in zip(self.names, self.width[2], strict=True) if width <= 0]

    @property
    def has_moved(self):
        return self.p_value < LEVEL

    @property
    def bias(self):
        """Of mean and variance at h: values and errors, from how far they moved to h/2."""
        factor = 1 / (1 - 2.0**-self.order)
        values = np.stack([self.shift[0] - self.shift[1], self.width[0] - self.width[1]]) * factor
        return values, abs(values) / np.maximum(abs(self.moved), 1e-9)


def extrapolated(run: SavedRun) -> Extrapolated | None:
    """What the run stores in ``posterior.attrs["extrapolation"]``.

    Raises:
        CannotTell: if that is something else.
    """
    found = stored_object(run, "extrapolation", WANTED)
    if found is None:
        return None
    n = {key: np.asarray(found[key], float) for key in WANTED if isinstance(found[key], list) and key != "names"}
    order = np.argsort(-np.maximum(abs(n["mean_moved"]), abs(n["variance_moved"])), kind="stable")
    # a variance that is extrapolated to nothing is no scale
    limit = np.where(n["extrapolated_variance"] > 0, n["extrapolated_variance"], n["variance"][1])
    mean, mean_error, variance, variance_error = (
        np.concatenate([n[key], n[f"extrapolated_{key}"][None]])
        for key in ("mean", "mean_error", "variance", "variance_error")
    )
    return Extrapolated(
        names=[str(found["names"][i]) for i in order],
        total=int(found["coordinates"]),
        step_sizes=np.append(n["step_sizes"], 0.0),
        shift=((mean - mean[2]) / np.sqrt(limit))[:, order],
        shift_error=(mean_error / np.sqrt(limit))[:, order],
        width=(variance / limit)[:, order],
        width_error=(variance_error / limit)[:, order],
        moved=np.stack([n["mean_moved"], n["variance_moved"]])[:, order],
        p_value=float(found["p_value"]),
        order=float(found["order"]),
        chains=int(found["num_chains"]),
    )


def judged(found: Extrapolated, tolerance) -> tuple[bool | None, str]:
    """Whether the bias at h is little, and a sentence."""
    values, errors = found.bias
    allowed = np.array([[SHIFT_TOLERANCE], [tolerance]])
    beyond_chance = t.isf(LEVEL / (4 * found.total), found.chains - 1)
    seen, open_to = (abs(values) - beyond_chance * errors) / allowed, (abs(values) + 2 * errors) / allowed
    which, i = np.unravel_index(np.argmax(seen if found.has_moved else open_to), seen.shape)
    of, p = f"the {('mean', 'variance')[which]} of {found.names[i]}", f"p = {found.p_value:.2g}"
    if found.has_moved:
        unit, scale = (("sds", 1), ("%", 100))[which]
        size = with_error(scale * values[which, i], scale * errors[which, i])
        said = f"from h to h/2 {of} moves ({p}), which puts its bias at h to {size} {unit}"
    else:
        said = f"from h to h/2 nothing moves beyond chance ({p})"
    if seen.max() > 1:
        return False, said
    if open_to.max() <= 1:
        return True, said
    which, i = np.unravel_index(np.argmax(open_to), seen.shape)
    room = f"{open_to[0, i] * SHIFT_TOLERANCE:.2g} sds" if which == 0 else f"{100 * open_to[1, i] * tolerance:.2g} %"
    return None, f"{said}; errors leave room for {room} of the {('mean', 'variance')[which]} of {found.names[i]}"


def extrapolation_table(found: Extrapolated) -> str:
    """Means and variances at h, h/2 and 0, those that moved most first."""
    h = found.step_sizes
    header = ("coordinate", *(f"at h = {size:.3g}" if size else "h to 0" for size in h), "moved, in errors")
    rows = []
    for i, name in enumerate(found.names[:SHOWN]):
        shifts = [with_error(v, e) for v, e in zip(found.shift[:, i], found.shift_error[:, i], strict=True)]
        widths = [with_error(v, e) for v, e in zip(found.width[:, i], found.width_error[:, i], strict=True)]
        rows.append((f"{name}: mean, in sds from its limit", *shifts, f"{found.moved[0, i]:+.1f}"))
        rows.append((f"{name}: variance, by its limit", *widths, f"{found.moved[1, i]:+.1f}"))
    more = found.total - min(SHOWN, len(found.names))
    return columns(rows, header) + (f"\nand {more} coordinates more, which moved less" if more else "")


def draw_extrapolation(panels, found: Extrapolated):
    """Mean and variance against the step size, of the coordinates that moved most, on two axes."""
    h = found.step_sizes
    drawn = min(DRAWN, len(found.names))
    apart = 0.018 * h[0] * (np.arange(drawn) - (drawn - 1) / 2)
    for axes, values, errors in (
        (panels[0], found.shift, found.shift_error),
        (panels[1], found.width - 1, found.width_error),
    ):
        scale = 1 if axes is panels[0] else 100
        grid = np.linspace(0, h[0], 50)
        for i, color in zip(range(drawn), COLORS, strict=False):
            y, e = scale * values[:, i], scale * errors[:, i]
            curve = y[2] + (y[0] - y[1]) * (grid / h[0]) ** found.order / (1 - 2.0**-found.order)
            axes.plot(grid + apart[i], curve, color=color, lw=0.9, alpha=0.6)
            axes.errorbar(h[:2] + apart[i], y[:2], e[:2], fmt="o", ms=5, capsize=2, color=color, label=found.names[i])
            axes.errorbar(apart[i], y[2], e[2], fmt="o", ms=5, mfc="w", capsize=2, color=color)
        axes.axhline(0, color="k", lw=0.8, ls=(0, (4, 4)))
        axes.set(xticks=[0, h[1], h[0]], xticklabels=["0\nextrapolated", f"h/2\n{h[1]:.3g}", f"h\n{h[0]:.3g}"])
        axes.set_xlim(-0.12 * h[0], 1.12 * h[0])
        axes.set_xlabel("step size")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("mean, from its limit, posterior sds")
    panels[1].set_ylabel("variance, above its limit, %")
    handles, labels = panels[0].get_legend_handles_labels()
    which = "" if drawn == found.total else f"{drawn} of {found.total} coordinates, those that moved most, "
    title = f"{which}± 1 error"
    panels[0].figure.legend(
        handles,
        labels,
        frameon=False,
        loc="outside upper center",
        ncols=drawn,
        title=title,
        title_fontsize=9,
        fontsize=9,
    )
