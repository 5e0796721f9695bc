"""The figure of peers: how much faster, and how soon posterior sds are known to 1 %."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator

# Okabe and Ito's colours, which the colour-blind tell apart, and a marker each besides
STYLES = (("#0072B2", "o"), ("#D55E00", "s"))


def _panel(axes, series, label, number):
    """Dots on a logarithmic axis, a line for each contender; ``series`` is name -> contender -> (value, computed)."""
    contenders = list(dict.fromkeys(name for values in series.values() for name in values))[::-1]
    for shift, values, (colour, marker) in zip((0.13, -0.13), series.values(), STYLES, strict=False):
        for contender, (value, computed) in values.items():
            height = contenders.index(contender) + shift
            fill = "white" if computed else colour
            axes.plot(value, height, marker, color=colour, markerfacecolor=fill)
            axes.annotate(number(value), (value, height), (6, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set(xscale="log", yticks=range(len(contenders)), yticklabels=contenders, xlabel=label)
    axes.xaxis.set_major_locator(LogLocator(numticks=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.margins(x=0.3)  # room for the last number
    axes.grid(axis="y", alpha=0.3)
    handles = [
        plt.Line2D([], [], color=colour, marker=marker, linestyle="", label=name)
        for name, (colour, marker) in zip(series, STYLES, strict=False)
    ]
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)


def draw(path, numbers):
    """Panels of the parts that were measured."""
    panels = []
    for workload in ("W1", "W2", "W3"):
        series = {
            f"{workload}, {chains} chain{'s' * (chains > 1)}": {
                name: (one["us"], False) for name, one in numbers[f"{workload}, {chains}"].items()
            }
            for chains in (1, 64)
            if numbers.get(f"{workload}, {chains}")
        }
        if series:
            panels.append(
                (series, "CPU µs a gradient", lambda value: f"{value:,.0f}" if value > 100 else f"{value:.2g}")
            )
    series = {
        f"N = {int(name.split()[1]):,}": {who: (one["seconds"], not one["complete"]) for who, one in found.items()}
        for name, found in numbers.items()
        if name.startswith("error")
    }
    if series:
        panels.append((series, "CPU s to sds known to 1 %; open: computed", lambda value: f"{value:,.0f}"))
    if not panels:
        return
    rows = int(np.ceil(len(panels) / 2))
    figure, grid = plt.subplots(rows, 2 if len(panels) > 1 else 1, figsize=(11, 3.6 * rows), squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _panel(axes, *panel)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
