# SPDX-License-Identifier: Apache-2.0
"""A chart of horizontal bars as SVG, to stand in an HTML page whose style sheet colours it (classes s0, s1, s2).

Sections have headings, lines have labels, and a line has one bar a series. The figure stands at the end of its bar, so that
nothing depends on colour alone; a bar without one says why.
"""
import math
from collections import namedtuple

from paper.markup import Markup, join, tag

Chart = namedtuple("Chart", "id title description unit series sections reference")
Section = namedtuple("Section", "heading lines")
Line = namedtuple("Line", "label bars")
Bar = namedtuple("Bar", "value text")

WIDTH, LEFT, RIGHT = 760, 220, 96
BAR, GAP, LINE_GAP, HEADING, AXIS = 13, 2, 9, 30, 26
LEGEND = 24
MAX_TICKS = 6


def nice_step(top):
    """Of an axis up to `top`: 1, 2 or 5 times a power of ten."""
    if top <= 0:
        return 1
    raw = top / MAX_TICKS
    power = 10 ** math.floor(math.log10(raw))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= raw)


def tick_text(value):
    return f"{value:,.0f}" if value >= 1 or value == 0 else f"{value:g}"


def values_of(chart):
    return [bar.value for section in chart.sections for line in section.lines for bar in line.bars if bar.value is not None]


class Scale:
    """From a value to a place on the line."""

    def __init__(self, chart):
        top = max([0, *values_of(chart), chart.reference or 0])
        self.step = nice_step(top)
        self.top = max(self.step, math.ceil(top / self.step - 1e-9) * self.step)

    def x(self, value):
        return round(LEFT + max(0, value) / self.top * (WIDTH - LEFT - RIGHT), 1)

    def ticks(self):
        return [i * self.step for i in range(round(self.top / self.step) + 1)]


def line_height(line):
    return max(1, len(line.bars)) * (BAR + GAP) + LINE_GAP


def legend(series):
    parts, x = [], LEFT
    for i, name in enumerate(series):
        parts += [tag("rect", x=x, y=4, width=BAR, height=BAR, class_=f"bar s{i}"), tag("text", name, x=x + BAR + 6, y=15, class_="label")]
        x += BAR + 30 + 7 * len(name)
    return join(parts)


def bars_of(line, y, scale):
    parts = []
    for i, bar in enumerate(line.bars):
        top = y + i * (BAR + GAP)
        end = scale.x(bar.value or 0)
        if bar.value is not None:
            parts.append(tag("rect", x=LEFT, y=top, width=max(1, round(end - LEFT, 1)), height=BAR, class_=f"bar s{i}"))
        parts.append(tag("text", bar.text, x=end + 6, y=top + BAR - 2, class_="value" if bar.value is not None else "value empty"))
    return join(parts)


def grid(scale, top, bottom, unit):
    parts = []
    for value in scale.ticks():
        x = scale.x(value)
        parts += [tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"),
                  tag("text", tick_text(value), x=x, y=bottom + 16, class_="tick")]
    return join([*parts, tag("text", unit, x=WIDTH - RIGHT + 34, y=bottom + 16, class_="unit")])


def draw(chart):
    scale = Scale(chart)
    parts, y = [], LEGEND
    for section in chart.sections:
        if section.heading:
            parts.append(tag("text", section.heading, x=0, y=y + 20, class_="heading"))
            y += HEADING
        for line in section.lines:
            middle = y + (line_height(line) - LINE_GAP) / 2 + 4
            parts += [tag("text", line.label, x=LEFT - 10, y=round(middle, 1), class_="name"), bars_of(line, y, scale)]
            y += line_height(line)
    if chart.reference:
        x = scale.x(chart.reference)
        parts.append(tag("line", x1=x, x2=x, y1=LEGEND, y2=y, class_="reference"))
    return Markup(tag(
        "svg", tag("title", chart.title, id=f"{chart.id}-title"), tag("desc", chart.description, id=f"{chart.id}-desc"),
        legend(chart.series), grid(scale, LEGEND, y, chart.unit), *parts,
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {y + AXIS}", role="img",
        aria_labelledby=f"{chart.id}-title {chart.id}-desc"))
