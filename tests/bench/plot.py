"""A bar chart as SVG, drawn by hand: for each topic the systems side by side, the best of them as long as the line."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from tests.bench.results import Figure, Results, Topic, ratio
from tests.bench.tables import number

_LABEL, _BAR, _VALUE, _ROW, _GAP = 330, 420, 150, 15, 12
_COLOURS = ("#2563a8", "#e0913a", "#5b9e5f", "#a85b9e", "#777777", "#b0503c", "#3c9aa8", "#8a7a3c")
_OTHER = "#bbbbbb"
_STYLE = "text{font:12px sans-serif;fill:#333}.t{font-weight:bold}.v{font-size:11px}"


def draw(results: Results, topics: Sequence[Topic], systems: Sequence[str]) -> str:
    """The chart of some topics; ceilings in grey."""
    colours = dict(zip(systems, _COLOURS, strict=False))
    parts: list[str] = []
    y = 34
    for topic in topics:
        figures = [figure for figure in results.of(topic) if figure.counts and _is_shown(figure, systems)]
        best = _best(figures)
        if best is None:
            continue
        parts.append(f'<text class="t" x="0" y="{y + 11}">{escape(f"{topic.work}. {topic.what}, {topic.unit}")}</text>')
        y += _ROW + 4
        for figure in figures:
            width = max(1.0, _BAR * (ratio(figure, best) or 0.0))
            colour = _OTHER if figure.is_ceiling else colours[figure.system]
            parts += [
                f'<text class="v" x="{_LABEL - 8}" y="{y + 11}" text-anchor="end">{escape(figure.system)}</text>',
                f'<rect x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_ROW - 3}" fill="{colour}"/>',
                f'<text class="v" x="{_LABEL + width + 6:.1f}" y="{y + 11}">{number(figure.value)}</text>',
            ]
            y += _ROW
        y += _GAP
    width = _LABEL + _BAR + _VALUE
    legend = '<text x="0" y="14">longer is better; grey: a ceiling, which is no file system over S3</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}">'
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="white"/>{legend}{"".join(parts)}</svg>\n'
    )


def _is_shown(figure: Figure, systems: Sequence[str]) -> bool:
    return figure.is_ceiling or figure.system in systems


def _best(figures: Sequence[Figure]) -> Figure | None:
    if not figures:
        return None
    chosen = max if figures[0].topic.higher_is_better else min
    return chosen(figures, key=lambda figure: figure.value)
