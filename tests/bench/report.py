"""docs/benchmarks.md: its figures and its plot are made from a JSON file, the words around them by hand."""

from __future__ import annotations

from pathlib import Path

from tests.bench.plot import draw
from tests.bench.results import Results
from tests.bench.tables import markdown

DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- figures: made by `python -m tests.bench --report` -->", "<!-- end of figures -->"
_NOT_PLOTTED = {"0", "10"}


def write_report(results: Results, document: Path = DOCUMENT) -> None:
    """Put the figures into the document, and the plot beside it. Raises ValueError when it has no place for them."""
    text = document.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} has no lines {BEGIN!r} and {END!r}")
    plot = document.with_suffix(".svg")
    topics = [topic for topic in results.topics() if topic.work not in _NOT_PLOTTED]
    plot.write_text(draw(results, topics, list(results.systems)))
    figures = f"{_where(results)}\n\n![The figures as bars]({plot.name})\n\n{markdown(results)}"
    document.write_text(f"{before}{begin}\n\n{figures}\n{end}{after}")


def _where(results: Results) -> str:
    machine = results.machine
    lines = [
        f"Measured on {machine['date']}: {machine['cores']} cores, {machine['memory']} of memory,",
        f"Linux {machine['kernel']}, Python {machine['python']}. The server and the programs ran on the same cores.",
        f"Medians of {_runs(results)}.",
        "",
        *(f"- {name}: {system['version']} ({system['settings']})" for name, system in results.systems.items()),
    ]
    if results.absent:
        lines.append(f"- not installed: {', '.join(results.absent)}")
    return "\n".join(lines)


def _runs(results: Results) -> str:
    """How often the file systems were measured; the server, work 0, is measured at every start."""
    numbers = {
        len(figure.samples) for figure in results.figures.values() if figure.topic.work != "0" and figure.samples
    }
    fewest, most = min(numbers, default=0), max(numbers, default=0)
    return f"{most} runs" if fewest == most else f"{fewest} to {most} runs"
