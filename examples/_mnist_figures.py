"""Figures of the MNIST example."""

import numpy as np
from _scores import calibration

COLORS = ("0.35", "#E69F00", "#0072B2", "#D55E00", "#009E73")
MARKERS = "osD^v"


def _bare(axes):
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure, path):
    figure.savefig(path, dpi=160)


def draw_curves(path, results):
    """Test NLL and error against passes over the data and seconds: each chain's average so far."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(10.4, 6.4), layout="constrained")
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    for color, marker, (name, run) in zip(COLORS, MARKERS, results.items(), strict=False):
        curve = run["curve"]
        marks = {"marker": marker, "ms": 4, "markevery": max(1, len(curve["epoch"]) // 6)}
        for axes, key in zip(panels.T, ("epoch", "seconds"), strict=True):
            for panel, score in zip(axes, ("nll", "accuracy"), strict=True):
                values = np.array(curve[score]) if score == "nll" else 100 * (1 - np.array(curve[score]))
                panel.plot(curve[key], values.mean(0), color=color, lw=1.6, label=name, **marks)
                panel.fill_between(curve[key], values.min(0), values.max(0), color=color, alpha=0.15, lw=0)
    for axes, label in zip(panels[1], ("passes over the data", "seconds, compilation included"), strict=True):
        axes.set_xlabel(label)
    panels[0, 0].set(ylabel="test NLL, nats", yscale="log")
    panels[1, 0].set(ylabel="test error, %", yscale="log")
    for axes in panels.flat:
        _bare(axes)
        axes.grid(color="0.93", lw=0.6, which="both")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    panels[0, 0].legend(frameon=False, fontsize=9)
    figure.suptitle(
        "predictions averaged over the draws so far (of MAP: its weights); shaded: from chain to chain", fontsize=10
    )
    _save(figure, path)


def draw_calibration(path, means, labels):
    """Accuracy minus confidence against confidence."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.8, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="k", lw=0.8)
    for color, (name, probability) in zip(COLORS, means.items(), strict=False):
        confidence, right = probability.max(-1), probability.argmax(-1) == labels
        bins = np.array(list(calibration(confidence, right)))
        counts = bins[:, 2] * len(labels)
        error = np.sqrt(np.maximum(bins[:, 0] * (1 - bins[:, 0]), 1e-4) / counts)
        seen = counts >= 10
        axes.errorbar(bins[seen, 0], bins[seen, 1], error[seen], color=color, marker="o", ms=3.5, lw=1.2, label=name)
    axes.set(xlabel="confidence, mean of the bin", ylabel="accuracy − confidence")
    axes.set_title("above the line: too cautious; below: too sure. Bins of 10 digits or more", fontsize=9, loc="left")
    figure.legend(frameon=False, fontsize=9, ncols=3, loc="outside lower center")
    _bare(axes)
    _save(figure, path)


def draw_digits(path, images, labels, shown, means):
    """The least certain of the saved test digits, with what each method predicts for them."""
    from matplotlib.figure import Figure

    name = "SGWORLD+BAOAB"
    draws = shown[name]["probability"]
    certain = means[name][: draws.shape[2]].max(-1)
    chosen = np.argsort(certain)[:8]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    top, bottom = figure.subplots(2, len(chosen), height_ratios=(1, 1.4))
    for image, above, below in zip(chosen, top, bottom, strict=True):
        above.imshow(images[image], cmap="gray_r", interpolation="nearest")
        above.set_axis_off()
        above.set_title(f"it is a {labels[image]}", fontsize=9)
        p = draws[:, :, image].reshape(-1, draws.shape[-1])
        below.bar(np.arange(10), p.mean(0), color=["#D55E00" if n == labels[image] else "0.75" for n in range(10)])
        low, high = np.quantile(p, [0.05, 0.95], axis=0)
        below.vlines(np.arange(10), low, high, color="k", lw=1)
        below.plot(np.arange(10), means["MAP"][image], ls="none", marker="_", ms=7, color="#0072B2")
        below.set(ylim=(0, 1), xticks=np.arange(10), yticks=[0, 0.5, 1])
        below.tick_params(labelsize=7)
        _bare(below)
    bottom[0].set_ylabel("probability")
    for axes in bottom[1:]:
        axes.set_yticklabels([])
    figure.suptitle(
        f"bars: {name}, mean over draws (the true class in orange); lines: 5 to 95 % of the draws; blue: MAP",
        fontsize=10,
    )
    _save(figure, path)


def draw_weights(path, shown):
    """Draws of some output weights, by chain: weights have many equivalent places, predictions one."""
    from matplotlib.figure import Figure

    methods = [name for name in shown if name != "MAP"]
    count = shown[methods[0]]["weight"].shape[-1]
    figure = Figure(figsize=(10.4, 1.9 * len(methods)), layout="constrained")
    panels = np.atleast_2d(figure.subplots(len(methods), count, sharex="col"))
    for name, row in zip(methods, panels, strict=True):
        for number, axes in enumerate(row):
            for chain, values in enumerate(shown[name]["weight"][..., number]):
                axes.ecdf(values, color=COLORS[chain % len(COLORS)], lw=1.2)
            axes.set(yticks=[0, 0.5, 1], ylim=(0, 1))
            axes.tick_params(labelsize=7)
            _bare(axes)
        row[0].set_ylabel(name, fontsize=8)
    for number, axes in enumerate(panels[-1]):
        axes.set_xlabel(f"weight to class {number}", fontsize=8)
    figure.suptitle("distribution of the weights from one hidden unit to four classes: a line a chain", fontsize=10)
    _save(figure, path)


def draw_currents(path, draws, found, probability_current, bins=11):
    """For each run, the current over the density in the plane of components that circulates most."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 10), layout="constrained")
    for axes, (name, x) in zip(figure.subplots(2, 2).flat, draws.items(), strict=True):
        area = found[name][0]
        with np.errstate(divide="ignore", invalid="ignore"):
            prominence = np.triu(np.nan_to_num(np.abs(area.matrix) / area.null_error), 1)
        plane = tuple(int(n) for n in np.unravel_index(prominence.argmax(), prominence.shape))
        current = probability_current(x, plane, bins=bins)
        centre, sd = x[..., list(plane)].mean((0, 1)), x[..., list(plane)].std((0, 1))
        grid = [(at - c) / s for at, c, s in zip((current.x, current.y), centre, sd, strict=True)]
        flow, error = (part / sd[:, None, None] for part in (current.current, current.error))
        density = np.asarray(current.density).T
        axes.pcolormesh(*grid, density, cmap="Blues", vmin=0, vmax=2 * density.max(), shading="nearest")
        size, noise = np.hypot(*flow), np.hypot(*error)
        seen = np.isfinite(size) & (size > 2 * noise)
        at_x, at_y = np.meshgrid(*grid, indexing="ij")
        longest = np.nanmax(np.where(np.isfinite(size), size, np.nan))
        for mask, color, width in ((~seen, "0.55", 0.0025), (seen, "#D55E00", 0.005)):
            arrows = flow[:, mask] / longest * 1.6 * (grid[0][1] - grid[0][0])
            axes.quiver(
                at_x[mask], at_y[mask], *arrows, angles="xy", scale_units="xy", scale=1, color=color, width=width
            )
        axes.set(aspect="equal", xlabel=f"PC {plane[0] + 1}, sds", ylabel=f"PC {plane[1] + 1}, sds")
        axes.set_title(f"{name}: circulation p = {area.p_value:.3f}", fontsize=10, loc="left")
    figure.suptitle(
        "probability currents over the density, each panel's longest arrow alike; orange: beyond two errors",
        fontsize=10,
    )
    _save(figure, path)


def draw_theorem(path, found, lengths):
    """ln P(σ)/P(−σ) against σ, by length of stretch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 8.4), layout="constrained")
    labels = [f"stretches of {length}" if length > 1 else "single draws" for length in lengths]
    lines = {}
    for axes, (name, (_, theorems)) in zip(figure.subplots(2, 2).flat, found.items(), strict=True):
        reach = 0.0
        for color, label, histogram in zip(COLORS[1:], labels, theorems.histograms, strict=False):
            seen = np.isfinite(histogram.log_ratio) & (histogram.log_ratio_error < 1)
            if seen.any():
                x, y, error = histogram.centres[seen], histogram.log_ratio[seen], histogram.log_ratio_error[seen]
                lines[label] = axes.errorbar(x, y, error, fmt="o", ms=3.5, lw=1, color=color)
                reach = max(reach, float(x.max()))
        if reach:
            (lines["slope 1"],) = axes.plot([0, reach], [0, reach], "k", lw=1, ls=(0, (4, 4)))
        else:
            axes.text(0.5, 0.5, "too few reversals", transform=axes.transAxes, ha="center")
        axes.set(xlabel="σ, nats", ylabel="ln P(σ) / P(−σ)")
        slope, error = theorems.slope[0], theorems.slope_error[0]
        axes.set_title(f"{name}: slope {slope:.2f} ± {error:.2f} of single draws", fontsize=10, loc="left")
        _bare(axes)
    order = [label for label in (*labels, "slope 1") if label in lines]
    figure.legend(
        [lines[label] for label in order], order, frameon=False, fontsize=9, ncols=5, loc="outside upper center"
    )
    _save(figure, path)
