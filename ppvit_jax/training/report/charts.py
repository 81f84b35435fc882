"""Line charts as inline SVG, drawn in the colors of the page's style sheet."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from ppvit_jax.training.report.markup import Html, element

# Size of a chart in its own units, and the space around the plot for labels.
_WIDTH, _HEIGHT = 460, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 22, 10, 36
# A line has at most this many points; more cannot be told apart.
_MOST_POINTS = 600
# Narrower columns touch each other.
_NARROW = 4
# More dots than this would hide the line.
_MOST_DOTS = 40
# The labels of an axis are one of these times a power of ten apart.
_INTERVALS = (1, 2, 5, 10)

Point = tuple[float, float]
Format = Callable[[float], str]


@dataclasses.dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
      name: its name in the legend, such as "test".
      color: class of the style sheet: "first", "second" or "third".
      points: (x, y), ordered by x.
      dots: marks each point, with its values as a hint under the mouse, unless there are too many.
    """

    name: str
    color: str
    points: Sequence[Point]
    dots: bool = False


def percent(share: float) -> str:
    """Formats a share for an axis, such as 0.5 as "50%"."""
    return f"{100 * share:.4g}%"


def number(value: float) -> str:
    """Formats a number for an axis or a label."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@dataclasses.dataclass(frozen=True)
class Axes:
    """Axes of a chart with their labels, and the places of points on it.

    Attributes:
      x_range, y_range: first and last value of each axis.
      x_ticks, y_ticks: values with a label.
      x_title: title of the horizontal axis.
      format_x, format_y: formats of the labels.
    """

    x_range: Point
    y_range: Point
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    x_title: str
    format_x: Format = number
    format_y: Format = number

    def place(self, x: float, y: float) -> Point:
        """Returns the place of a point in the units of the chart."""
        across = (x - self.x_range[0]) / (self.x_range[1] - self.x_range[0])
        up = (y - self.y_range[0]) / (self.y_range[1] - self.y_range[0])
        plot = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        return round(_LEFT + across * plot[0], 1), round(_HEIGHT - _BOTTOM - up * plot[1], 1)

    def draw(self) -> list[Html]:
        """Returns the lines of the grid and the labels."""
        parts = []
        for tick in self.y_ticks:
            y = self.place(self.x_range[0], tick)[1]
            parts.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
            parts.append(element("text", self.format_y(tick), x=_LEFT - 8, y=y + 4, text_anchor="end"))
        for tick in (tick for tick in self.x_ticks if tick <= self.x_range[1]):
            x = self.place(tick, self.y_range[0])[0]
            parts.append(element("text", self.format_x(tick), x=x, y=_HEIGHT - 18, text_anchor="middle"))
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        return [*parts, element("text", self.x_title, x=middle, y=_HEIGHT - 3, text_anchor="middle")]


def line_chart(title: str, series: Sequence[Series], *, x_title: str, format_y: Format = number) -> Html:
    """Returns a figure with a chart, its legend, and a description in words for readers who cannot see it.

    Args:
      title: title of the figure.
      series: lines with one point at least.
      x_title: title of the horizontal axis, which begins at 0.
      format_y: formats values of the vertical axis.
    """
    series = [dataclasses.replace(line, points=_thin(line.points)) for line in series]
    xs, ys = ([point[axis] for line in series for point in line.points] for axis in (0, 1))
    # A constant is shown by its distance from zero.
    lowest = min(ys) if min(ys) < max(ys) else min(0, *ys)
    x_ticks, y_ticks = _ticks(0, max(xs), 6), _ticks(lowest, max(ys), 5)
    axes = Axes((0, max(*xs, 1e-9)), (y_ticks[0], y_ticks[-1]), x_ticks, y_ticks, x_title, format_y=format_y)
    parts = axes.draw()
    for line in series:
        places = [axes.place(*point) for point in line.points]
        if len(places) > 1:
            text = " ".join(f"{x:g},{y:g}" for x, y in places)
            parts.append(element("polyline", points=text, class_=f"line {line.color}"))
        if (line.dots and len(places) <= _MOST_DOTS) or len(places) == 1:
            hints = [f"{line.name}: {format_y(y)} ({x_title} {number(x)})" for x, y in line.points]
            parts += [
                element("circle", element("title", hint), cx=x, cy=y, r=3.5, class_=f"dot {line.color}")
                for hint, (x, y) in zip(hints, places, strict=True)
            ]
    described = "; ".join(_describe(line, format_y) for line in series)
    names = legend(series) if len(series) > 1 else ""
    return figure(title, _svg(f"{title}: {described}", parts), names, element("p", described, class_="note"))


Column = tuple[float, float, float, str]


def column_chart(
    title: str, columns: Sequence[Column], *, x_title: str, y_title: str, description: str, diagonal: bool = False
) -> Html:
    """Returns a figure with columns of shares.

    Args:
      title: title of the figure.
      columns: for each column its left and right edge and its height, from 0 to 1, and a hint in words.
      x_title, y_title: titles of the axes.
      description: the figure in words, for readers who cannot see it.
      diagonal: draws the line on which both axes have the same value.
    """
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    axes = Axes((0, 1), (0, 1), ticks, ticks, f"{x_title} (vertical: {y_title})", percent, percent)
    parts = axes.draw()
    for left, right, height, hint in columns:
        (x1, y1), (x2, y2) = axes.place(left, height), axes.place(right, 0)
        gap = 1 if x2 - x1 > _NARROW else 0
        box = {"x": x1 + gap / 2, "y": y1, "width": round(x2 - x1 - gap, 1), "height": round(y2 - y1, 1)}
        parts.append(element("rect", element("title", hint), class_="column", **box))
    if diagonal:
        (x1, y1), (x2, y2) = axes.place(0, 0), axes.place(1, 1)
        parts.append(element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="ideal"))
    return figure(title, _svg(f"{title}: {description}", parts))


def _svg(description: str, parts: Sequence[Html]) -> Html:
    return element("svg", element("title", description), *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img")


def figure(title: str, *children: object) -> Html:
    """Returns a figure with its title above it."""
    return element("figure", element("figcaption", title), *children)


def legend(series: Sequence[Series]) -> Html:
    """Returns the names of the lines beside their colors."""
    items = [element("li", element("i", class_=line.color, aria_hidden="true"), line.name) for line in series]
    return element("ul", *items, class_="legend")


def _describe(line: Series, format_y: Format) -> str:
    first, last = line.points[0][1], line.points[-1][1]
    if len(line.points) == 1:
        return f"{line.name} {format_y(last)}"
    return f"{line.name} from {format_y(first)} to {format_y(last)}"


def _thin(points: Sequence[Point]) -> Sequence[Point]:
    """Returns at most `_MOST_POINTS` points at equal distances, and the last one."""
    stride = -(-len(points) // _MOST_POINTS)
    return points if stride <= 1 else [*points[:-1:stride], points[-1]]


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Returns about `count` round numbers at equal distances, the first not above `low`, the last not below `high`."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / count))
    step = next(interval * power for interval in _INTERVALS if interval * power >= span / count * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(tick * step, 12) for tick in range(first, last + 1)]
