"""The figures of nonlinear_regression.py."""

import matplotlib.pyplot as plt
import numpy as np
from _nonlinear_regression import NOISE_SCALE, net
from matplotlib.patches import Ellipse
from matplotlib.transforms import Affine2D
from scipy.stats import chi2

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
SIGMA_LABEL = r"entropy production $\sigma$, nats"


def fit(path, data, minimum, sgworld, exact):
    """Data, the net at the minimum, and its posterior by SGWORLD and by importance sampling."""
    x, y = data
    grid = np.linspace(x.min(), x.max(), 300)
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    axes.plot(x, y, ".", ms=4, color="0.6", label="data")
    axes.plot(grid, net(minimum, grid), color="k", lw=1, label="minimum of L")
    for draws, label, style in (
        (sgworld, "SGWORLD, mean ± 2 sd", {"color": BLUE, "lw": 1.5}),
        (exact, "exact, mean ± 2 sd", {"color": ORANGE, "lw": 1.2, "ls": "--"}),
    ):
        values = np.asarray(net(draws.T[..., None], grid))
        mean, sd = values.mean(0), values.std(0)
        axes.plot(grid, mean + 2 * sd, label=label, **style)
        axes.plot(grid, mean - 2 * sd, **style)
        axes.fill_between(grid, mean - 2 * sd, mean + 2 * sd, color=style["color"], alpha=0.08, lw=0)
    axes.set(xlabel="x", ylabel="y")
    figure.legend(frameon=False, fontsize=9, ncols=4, loc="outside lower center")
    axes.set_title(f"a net of two tanh units; noise of the data {NOISE_SCALE:g}", fontsize=9, loc="left")
    _save(figure, path)


def laws(path, dims, with_replacement, without_replacement):
    """Stationary laws of plain SGD in the plane of two weights; the right panel is the middle of the left one.

    Args:
        path: the file.
        dims: numbers of the two weights.
        with_replacement: draws (n, dim), the fit and the ``Prediction``.
        without_replacement: the same.
    """
    figure, panels = plt.subplots(1, 2, figsize=(10.4, 4.9), layout="constrained")
    origin = with_replacement[2].loss_minimum[list(dims)]
    titles = ("with replacement, every step", "without, every epoch")
    for axes, (draws, fitted, prediction), unit, color, title in zip(
        panels, (with_replacement, without_replacement), (1e-3, 1e-6), (ORANGE, BLUE), titles, strict=True
    ):
        expected = prediction.dynamics
        plane = np.ix_(dims, dims)
        shown = (draws[:, dims] - origin) / unit
        axes.plot(*shown[:: max(1, len(shown) // 4000)].T, ".", ms=2, alpha=0.35, color=color, mew=0)
        measured = (fitted.mean[list(dims)] - origin) / unit
        predicted = (expected.mean[list(dims)] - origin) / unit
        _contours(axes, measured, fitted.covariance[plane] / unit**2, ec=color, lw=2.2)
        _contours(axes, predicted, expected.covariance[plane] / unit**2, ec="k", lw=1.1, ls=(0, (4, 4)))
        axes.plot([], [], color=color, lw=2.2, label="measured, 1 and 2 σ")
        axes.plot([], [], color="k", lw=1.1, ls=(0, (4, 4)), label="predicted")
        axes.plot(0, 0, "k+", ms=11, mew=1.6, label="minimum of L")
        if not np.allclose(prediction.landscape_minimum, prediction.loss_minimum, atol=0, rtol=1e-12):
            landscape = (prediction.landscape_minimum[list(dims)] - origin) / unit
            axes.plot(*landscape, "kx", ms=8, mew=1.6, label="minimum of the effective landscape")
        power = round(np.log10(unit))
        names = [rf"$w_{d + 1} - w_{d + 1}^\mathrm{{min}}$, $10^{{{power}}}$" for d in dims]
        axes.set(aspect="equal", xlabel=names[0], ylabel=names[1])
        spread = np.sqrt(np.diag(expected.covariance)[list(dims)]).max() / unit
        far = np.stack([measured - 3.4 * spread, measured + 3.4 * spread, [0, 0]])
        low, high = far.min(0) - 0.4 * spread, far.max(0) + 0.4 * spread
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axes.set_title(title, fontsize=10, loc="left")
    labelled = {}  # once for both panels
    for axes in panels:
        labelled |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(labelled.values(), labelled, frameon=False, fontsize=8, ncols=4, loc="outside lower center")
    figure.suptitle("plain SGD: what spreads the weights are the minibatches alone", fontsize=10)
    _save(figure, path)


def fluctuation_theorem(path, theorems, unit):
    """Distributions of the entropy production of short and long stretches, and ln P(σ)/P(−σ) against σ."""
    lengths = [int(theorems.lengths[0]), int(theorems.lengths[-1])]
    figure, panels = plt.subplots(1, 3, figsize=(11.4, 3.9), layout="constrained")
    for axes, length, index, color in zip(panels[1:], lengths, (0, -1), (ORANGE, BLUE), strict=True):
        histogram = theorems.histograms[index]
        name = f"{length} {unit}{'s' if length > 1 else ''}"
        edges, counts = histogram.edges, histogram.counts
        sd = np.sqrt(np.average(((edges[1:] + edges[:-1]) / 2) ** 2, weights=counts))
        density = counts / (counts.sum() * np.diff(edges)) * sd
        panels[0].stairs(density, edges / sd, baseline=None, color=color, lw=1.5, label=f"{name}, sd {sd:.2g}")
        reach = histogram.centres[np.isfinite(histogram.log_ratio)].max() * 1.05
        axes.plot([0, reach], [0, reach], "k", lw=1, label="slope 1")
        axes.errorbar(
            histogram.centres, histogram.log_ratio, histogram.log_ratio_error, fmt="o", ms=3.5, lw=1, color=color
        )
        axes.set(xlim=(0, reach), xlabel=SIGMA_LABEL, ylabel=r"$\ln\,P(\sigma)\,/\,P(-\sigma)$")
        # far bins hold few reversals: their errors must not squeeze the line
        axes.set_ylim(-1.0 * reach, 2.6 * reach)
        axes.set_title(
            f"{name}: slope {theorems.slope[index]:.3f} ± {theorems.slope_error[index]:.3f}", fontsize=10, loc="left"
        )
        axes.legend(frameon=False, loc="upper left")
    panels[0].set(yscale="log", xlabel=r"$\sigma$ / its sd", ylabel="density")
    panels[0].legend(frameon=False, loc="lower center", fontsize=8)
    panels[0].set_title("SGD with replacement", fontsize=10, loc="left")
    _save(figure, path)


def currents(path, panels):
    """Maps of the probability current, each in the plane where most is expected; pale where it may well be chance.

    Args:
        path: the file.
        panels: title, ``ProbabilityCurrent`` and the group whose arrows share a scale.
    """
    figure, all_axes = plt.subplots(1, len(panels), figsize=(3.7 * len(panels), 4.1), sharey=True, layout="constrained")
    colors = {"plain SGD": GREEN, "SGLD": ORANGE, "SGWORLD": BLUE}
    for axes, (title, current, group) in zip(all_axes, panels, strict=True):
        strongest = max(_longest(other) for _, other, another in panels if another == group)
        x, y = current.x, current.y
        density = current.density / current.density.max()
        axes.contourf(x, y, density.T, levels=np.linspace(0.03, 1, 9), cmap="Greys", alpha=0.35)
        shown = _frequented(current)
        where_x, where_y = np.meshgrid(x, y, indexing="ij")
        arrows = current.current * (1.9 * (x[1] - x[0]) / strongest)
        certain = ((current.current / current.error) ** 2).sum(0) > chi2(2).ppf(0.99)
        for drawn, alpha in ((shown & certain, 1.0), (shown & ~certain, 0.3)):
            axes.quiver(
                where_x[drawn],
                where_y[drawn],
                *arrows[:, drawn],
                angles="xy",
                scale_units="xy",
                scale=1,
                width=0.007,
                color=colors[title.split(",")[0]],
                alpha=alpha,
                pivot="mid",
            )
        axes.set(aspect="equal", xlim=(-2.4, 2.4), ylim=(-2.4, 2.4), xlabel="first coordinate of the plane, sds")
        axes.set_title(title, fontsize=9, loc="left")
    all_axes[0].set_ylabel("second coordinate, sds")
    figure.suptitle(
        "probability currents; panels of one kind share the scale of arrows; pale: may be chance", fontsize=9
    )
    _save(figure, path)


def _frequented(current):
    return current.density > 0.03 * np.nanmax(current.density)


def _longest(current):
    return float(np.linalg.norm(current.current[:, _frequented(current)], axis=0).max())


def _contours(axes, centre, covariance, **options):
    to_ellipse = Affine2D(np.block([[np.linalg.cholesky(covariance), np.asarray(centre)[:, None]], [0, 0, 1]]))
    for size in (1, 2):
        circle = Ellipse((0, 0), 2 * size, 2 * size, fc="none", **options)
        axes.add_patch(circle).set_transform(to_ellipse + axes.transData)


def _save(figure, path):
    figure.savefig(path, dpi=200)
    plt.close(figure)
