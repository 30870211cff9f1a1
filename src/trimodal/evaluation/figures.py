"""Curves as SVG that takes its colours from the page it stands in, light or dark.

figure = curve(run.series["loss"])
figure = shares("image->text", "figures", {"": [(1, 0.99), (2, 0.9)]})
"""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trimodal.evaluation.run import Series

INK, GRID, ACCENT = "#010203", "#040506", "#070809"
"""Stand-ins that no figure needs as colours; the page's own replace them."""
SERIES = tuple(f"#0a0b{i:02x}" for i in range(11))
"""Likewise, for lines of one chart."""
COLOURS = {
    INK: "currentColor",
    GRID: "var(--line)",
    ACCENT: "var(--accent)",
    **{stand_in: f"var(--c{i})" for i, stand_in in enumerate(SERIES)},
}
DASHES = ("--", ":", "-.")
MOST_POINTS = 400
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.formatter.limits": (-3, 5),
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
}


def curve(series: Series) -> Markup:
    """One number over the steps: every logged value faint, their running mean strong."""
    steps, values = _thin(series)
    with mpl.rc_context({**STYLE, "svg.hashsalt": series.name}):
        figure = Figure(figsize=(3.5, 1.9), layout="constrained")
        axes = figure.add_subplot()
        marker = "o" if len(values) == 1 else None
        axes.plot(steps, values, color=ACCENT, linewidth=0.8, alpha=0.35, marker=marker)
        axes.plot(steps, _running_mean(values), color=ACCENT, linewidth=1.8)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("step", loc="right")
        axes.margins(x=0.02, y=0.08)
        return _svg(figure, series.name, describe(series))


def curves(name: str, lines: Mapping[str, Series]) -> Markup:
    """One number over the steps of several runs, by the name of the run: their running means."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(3.5, 2.1), layout="constrained")
        axes = figure.add_subplot()
        for i, series in enumerate(lines.values()):
            steps, values = _thin(series)
            colour, style = SERIES[i % len(SERIES)], ("-", *DASHES)[i // len(SERIES) % 4]
            axes.plot(steps, _running_mean(values), color=colour, linestyle=style, linewidth=1.6)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("step", loc="right")
        axes.margins(x=0.02, y=0.08)
        said = "; ".join(f"{run}: {describe(series)}" for run, series in lines.items())
        return _svg(figure, name, said)


def histogram(name: str, values: Sequence[float], unit: str) -> Markup:
    """How many values lie where, in `unit`; the outermost hundredths are added to the ends."""
    array = np.asarray(values, dtype=np.float64)
    low, high = np.quantile(array, (0.01, 0.99))
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(3.5, 1.9), layout="constrained")
        axes = figure.add_subplot()
        axes.hist(array.clip(low, high), bins=40, color=ACCENT)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_xlabel(unit, loc="right")
        said = f"{name}: {len(array)} values, the middle 98 % from {low:.4g} to {high:.4g} {unit}"
        return _svg(figure, name, said)


def shares(name: str, key: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> Markup:
    """Shares in percent over a number, a line each; the first is the strong one.

    Args:
        name: of what the shares are.
        key: of the number.
        lines: points by the name of the line.
    """
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(3.5, 2.1), layout="constrained")
        axes = figure.add_subplot()
        drawn = []
        for i, points in enumerate(lines.values()):
            x, y = zip(*points, strict=True)
            colour, style = (ACCENT, "-") if i == 0 else (INK, DASHES[(i - 1) % len(DASHES)])
            percent = [100 * share for share in y]
            drawn += axes.plot(x, percent, color=colour, linestyle=style, marker="o")
        axes.set_ylim(0, 103)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel(key.replace("_", " "), loc="right")
        if len(lines) > 1:
            axes.legend(drawn, list(lines), frameon=False, loc="lower left")
        return _svg(figure, f"{name} by {key}", describe_shares(name, key, lines))


def describe_shares(name: str, key: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """The shares in words."""
    parts = []
    for title, points in lines.items():
        values = ", ".join(f"{100 * share:.1f} % at {x:g}" for x, share in points)
        parts.append(f"{title}: {values}" if title else values)
    return f"{name} by {key}: " + "; ".join(parts)


def describe(series: Series) -> str:
    """The curve in words."""
    steps, values = series.steps, series.values
    return (
        f"{series.name}: {values[0]:.4g} at step {steps[0]}, {values[-1]:.4g} at step {steps[-1]}, "
        f"between {values.min():.4g} and {values.max():.4g}"
    )


def _thin(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Means of equal stretches, so that a long run draws no more than a screen shows."""
    parts = min(MOST_POINTS, len(series.values))
    steps = [part.mean() for part in np.array_split(series.steps, parts)]
    return np.array(steps), np.array([part.mean() for part in np.array_split(series.values, parts)])


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Centred, over a twentieth of the run, narrower at the ends."""
    reach = len(values) // 40
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    spread = np.minimum(reach, np.minimum(at, len(values) - 1 - at))
    return (sums[at + spread + 1] - sums[at - spread]) / (2 * spread + 1)


def _svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as one element of an HTML page, its ids made unique by its name."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # a page's own fonts show the text; the one that measures it here may lack a character
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    opening, rest = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', opening)
    prefix = "c-" + re.sub(r"\W", "-", name)
    rest = re.sub(r'\bid="', f'id="{prefix}-', rest)
    rest = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}-', rest)
    rest = rest.replace("url(#", f"url(#{prefix}-")
    for stand_in, colour in COLOURS.items():
        rest = rest.replace(stand_in, colour)
    view = box.group() if box else ""
    # matplotlib has escaped the text in it
    return Markup(f'<svg {view} role="img" aria-label="{escape(description)}">{rest}')  # noqa: S704
