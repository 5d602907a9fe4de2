"""The results as tables: for a terminal (rich) and for a document (Markdown)."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from tests.bench.results import Figure, Results, Topic, ratio
from tests.bench.targets import MSCFS, TARGETS

_COLUMNS = ("", "median", "× best peer", "× ceiling", "sent / read", "peak MiB (private)", "CPU s", "besides")
_MATRICES = {"10"}
"""Works of so many topics that they are one table: the median alone."""
_MATRIX_TITLE = "fio (MiB/s)"
MIB = 1 << 20


def rows(results: Results, topic: Topic) -> Iterator[tuple[str, ...]]:
    """The lines of one topic."""
    ceiling = results.ceiling(topic)
    for figure in results.of(topic):
        if figure.error and not figure.samples:
            yield (figure.system, "failed", "", "", "", "", "", figure.error)
            continue
        peer = None if figure.is_ceiling else results.best_peer(topic, but=figure.system)
        yield (
            figure.system + (" (ceiling)" if figure.is_ceiling else ""),
            number(figure.value),
            _times(ratio(figure, peer)),
            _times(None if figure.is_ceiling else ratio(figure, ceiling)),
            "" if figure.wire is None else f"{figure.wire:.2f}",
            "" if not figure.pss else f"{figure.pss / MIB:.0f} ({figure.private / MIB:.0f})",
            "" if not figure.pss else f"{figure.cpu:.2f}",
            _besides(figure),
        )


def matrix(results: Results, work: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A work of many topics as one table: a line for each topic, a column for each system."""
    topics = [topic for topic in results.topics() if topic.work == work]
    systems = list(dict.fromkeys(figure.system for topic in topics for figure in results.of(topic)))
    lines = []
    for topic in topics:
        figures = {figure.system: figure for figure in results.of(topic)}
        cells = [_cell(figures.get(system)) for system in systems]
        mscfs = figures.get(MSCFS)
        times = _times(ratio(mscfs, results.best_peer(topic, but=MSCFS))) if mscfs else ""
        lines.append((topic.what, *cells, times))
    return ("what", *systems, "mscfs × best peer"), lines


def show(results: Results, console: Console) -> None:
    """Print everything."""
    for name, how in results.absent.items():
        console.print(f"[dim]{name} is not here: {how}[/dim]")
    for topic in results.topics():
        if topic.work in _MATRICES:
            continue
        table = Table(title=_title(topic), title_justify="left", title_style="bold", expand=False)
        for name in _COLUMNS:
            table.add_column(name, justify="left" if name in {"", "besides"} else "right", overflow="fold")
        for row in rows(results, topic):
            table.add_row(*row, style="red" if row[1] == "failed" or "INVALID" in row[-1] else None)
        console.print(table)
    for work in _MATRICES & {topic.work for topic in results.topics()}:
        columns, lines = matrix(results, work)
        table = Table(title=f"{work}. {_MATRIX_TITLE}", title_justify="left", title_style="bold")
        for name in columns:
            table.add_column(name, justify="left" if name == "what" else "right", overflow="fold")
        for line in lines:
            table.add_row(*line)
        console.print(table)
    table = Table(title="Targets of mscfs", title_justify="left", title_style="bold")
    for name in ("work", "what", "reached", "target", ""):
        table.add_column(name, justify="right" if name in {"reached", "target"} else "left")
    for row in target_rows(results):
        table.add_row(*row, style={"missed": "red", "met": "green"}.get(row[-1], "dim"))
    console.print(table)


def markdown(results: Results) -> str:
    """The same for a document."""
    parts = []
    for topic in results.topics():
        if topic.work in _MATRICES:
            continue
        parts += [f"**{_title(topic)}**", "", _markdown_table(_COLUMNS, list(rows(results, topic))), ""]
    for work in _MATRICES & {topic.work for topic in results.topics()}:
        parts += [f"**{work}. {_MATRIX_TITLE}**", "", _markdown_table(*matrix(results, work)), ""]
    parts += ["**Targets of mscfs**", ""]
    parts.append(_markdown_table(("work", "what", "reached", "target", ""), list(target_rows(results))))
    return "\n".join(parts) + "\n"


def target_rows(results: Results) -> Iterator[tuple[str, ...]]:
    """What was to be reached, and was."""
    for target in TARGETS:
        reached, enough = target.judge(results)
        sign = "≥" if target.at_least else "≤"
        verdict = "not measured" if enough is None else "met" if enough else "missed"
        yield (
            target.work,
            target.what,
            "" if reached is None else number(reached),
            f"{sign} {number(target.bound)}",
            verdict,
        )


def number(value: float) -> str:
    """Three digits that matter, no exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _title(topic: Topic) -> str:
    return f"{topic.work}. {topic.what} [{topic.unit}]".replace("[", "(").replace("]", ")")


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    if not figure.samples:
        return "failed"
    return number(figure.value) + (" (INVALID)" if figure.invalid else "")


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _besides(figure: Figure) -> str:
    names = dict.fromkeys(name for sample in figure.samples for name in sample.extras)
    parts = [f"{name} {number(figure.extra(name) or 0)}" for name in names]
    if len(figure.samples) > 1:
        values = [sample.value for sample in figure.samples]
        parts.append(f"{number(min(values))} to {number(max(values))} in {len(values)} runs")
    if figure.invalid:
        parts.append(f"INVALID: {figure.invalid}")
    if figure.error:
        parts.append(f"failed: {figure.error}")
    return "; ".join(parts)


def _markdown_table(columns: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    aligned = ["---" if name in {"", "besides", "what", "work"} else "---:" for name in columns]
    table = [columns, tuple(aligned), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in table)
