"""The figure of gaussian_mean.py."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse
from matplotlib.transforms import Affine2D

SHOWN = ("SGLD", "SGWORLD")  # whose draws are; those of a third would hide them
SIGNIFICANT = 0.01  # p-value of the whole field of currents
STYLES = {
    "SGLD": {"color": "#D55E00", "marker": "o"},
    "SGWORLD": {"color": "#0072B2", "marker": "s"},
    "SGWORLD+LM": {"color": "#009E73", "marker": "D"},
}


def draw(path, bias, posteriors, flows, shown):
    """Bias against step size, draws at one step size; below, the currents of two methods there.

    Args:
        path: the file.
        bias: step sizes, the exact curve of each method on them, measured biases, step sizes allowed by the
            tolerance, and the tolerance.
        posteriors: draws of each method, from the posterior mean, and the posterior covariance.
        flows: for each of two methods a ``VelocityField`` and the entropy production. Their arrows have one scale, the
            probability that flows per pass and unit length, and one key.
        shown: R h λ of the draws.
    """
    draws, covariance = posteriors
    reach = 3.3 * np.sqrt(np.diag(covariance).max())
    figure, axes = plt.subplots(2, 2, figsize=(10.4, 9.6), layout="constrained")
    draw_bias(axes[0, 0], *bias)
    draw_posteriors(axes[0, 1], draws, covariance, reach, shown)
    longest = max(np.nanmax(np.hypot(*flow.current)) for flow, _ in flows.values())
    for axis, (name, (flow, production)) in zip(axes[1], flows.items(), strict=True):
        draw_current(axis, name, flow, production, longest, reach)
    draw_key(axes[1, 1], longest, 0.8 * reach)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def draw_bias(axis, grid, curves, biases, allowed, tolerance):
    apart = dict(zip(STYLES, (1, 0.96, 1.04), strict=True))  # keeps limits at the same step size legible
    for name, style in STYLES.items():
        axis.plot(grid, curves[name], color=style["color"], lw=1.5)
        axis.plot([], [], ms=5.5, label=name, **style)
        axis.plot(allowed[name], tolerance, "|", ms=10, mew=1.5, color="0.3")
        for pass_time, row in biases.items():
            squared = row[name].squared_covariance_error
            if squared.resolved:
                root = np.sqrt(squared.measured)
                axis.errorbar(pass_time, root, squared.error / (2 * root), ms=5.5, capsize=2.5, **style)
            else:
                x, limit = pass_time * apart[name], np.sqrt(squared.limit)
                axis.errorbar(x, limit, limit / 3, uplims=True, ms=4.5, mfc="w", lw=0.8, **style)
    axis.axhline(tolerance, color="0.3", lw=0.8, ls=":")
    axis.text(2.4, tolerance, f"{100 * tolerance:g} %", color="0.3", fontsize=9, ha="right", va="bottom")
    axis.set(xscale="log", yscale="log", xlim=(0.025, 2.5), ylim=(2e-5, 2))
    axis.set(xlabel=r"step size, as time per pass over the data, $R\,h\,\lambda$")
    axis.set(ylabel="relative error of the covariance")
    axis.legend(frameon=False, loc="upper left")
    axis.set_title("lines: exact; points: measured; hollow: upper limits (2 standard errors)", fontsize=9, loc="left")


def draw_posteriors(axis, draws, covariance, reach, shown):
    widths = {"SGLD": 1.8, "SGWORLD": 3.6, "SGWORLD+LM": 1.8}
    for name, offset in draws.items():
        color, flat = STYLES[name]["color"], offset.reshape(-1, 2)
        if name in SHOWN:
            axis.plot(*flat[:: max(len(flat) // 1000, 1)].T, ".", ms=3, alpha=0.5, color=color, mew=0, zorder=0)
        draw_contours(axis, np.cov(flat.T), ec=color, lw=widths[name])
        axis.plot([], [], color=color, lw=widths[name], label=name)
    draw_contours(axis, covariance, ec="k", lw=1.1, ls=(0, (4, 4)))
    axis.plot([], [], color="k", lw=1.1, ls=(0, (4, 4)), label="posterior")
    square(axis, reach)
    axis.legend(frameon=False, loc="upper left", ncols=2)
    axis.set_title(rf"draws at $R\,h\,\lambda$ = {shown:g}, with 1- and 2-σ contours", fontsize=9, loc="left")


def draw_current(axis, name, flow, production, longest, reach):
    """The current over a map of the density, pale where the whole field could be chance. One scale for all."""
    axis.pcolormesh(flow.x, flow.y, flow.density.T, cmap="Greys", vmax=2 * np.nanmax(flow.density), shading="gouraud")
    x, y = np.meshgrid(flow.x, flow.y, indexing="ij")
    significant = flow.p_value <= SIGNIFICANT
    axis.quiver(
        x,
        y,
        *flow.current,
        color=STYLES[name]["color"],
        alpha=1.0 if significant else 0.3,
        angles="xy",
        pivot="mid",
        scale=longest / (0.18 * reach),
        scale_units="xy",
        width=0.007,
    )
    square(axis, 0.8 * reach)
    seen = "circulates" if significant else "nothing beyond chance"
    rate = f"entropy production {production.measured:.4f} ± {production.error:.4f} nats a pass"
    axis.set_title(f"{name}, probability current: {seen} (p = {flow.p_value:.2g})\n{rate}", fontsize=9, loc="left")


def draw_key(axis, longest, reach):
    """What the length of an arrow means, in either panel."""
    length = 0.18 * reach / 0.8
    x, y = 0.45 * reach, -0.88 * reach
    axis.annotate(
        "", (x + length, y), (x, y), arrowprops={"arrowstyle": "-|>", "color": "k", "shrinkA": 0, "shrinkB": 0}
    )
    axis.text(
        x - 0.03 * reach, y, f"{longest:.2g} a pass and length,\nin both panels", fontsize=8, ha="right", va="center"
    )


def draw_contours(axis, covariance, **options):
    axes = Affine2D(np.block([[np.linalg.cholesky(covariance), np.zeros((2, 1))], [0, 0, 1]]))
    for size in (1, 2):
        circle = Ellipse((0, 0), 2 * size, 2 * size, fc="none", **options)
        axis.add_patch(circle).set_transform(axes + axis.transData)


def square(axis, reach):
    axis.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
    axis.locator_params(nbins=5)
    axis.set(xlabel="first coordinate, from its posterior mean", ylabel="second coordinate")
