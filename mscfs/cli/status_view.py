"""How a status document looks on a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mscfs.printable import printable
from mscfs.telemetry.status import (
    SILENT,
    ConditionalWrites,
    MountState,
    MountStatus,
    PrimaryStatus,
    ReplicaStatus,
    StoreState,
)

_COLOURS = {
    MountState.HEALTHY: "green",
    MountState.DEGRADED: "yellow",
    MountState.STOPPING: "yellow",
    MountState.UNRESPONSIVE: "red",
    MountState.DEAD: "red",
    StoreState.HEALTHY: "green",
    StoreState.SILENT: "yellow",
    StoreState.DOWN: "red",
}


def render(status: MountStatus) -> RenderableType:
    """One mount: a headline, its stores in reading order, and what waits."""
    parts: list[RenderableType] = [_headline(status)]
    if status.state is MountState.DEAD:
        parts.append(Text("  its process was killed: `mscfs mount` mounts it anew, `mscfs umount` takes it away"))
    elif status.state not in SILENT:
        parts += [_stores(status), *_troubles(status), Text(_summary(status), style="dim")]
    return Group(*parts, Text())


def human_size(size: float) -> str:
    """`1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def human_time(seconds: float) -> str:
    """`42 s`, `5 min`, `3 h`, `2 d`."""
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _headline(status: MountStatus) -> Text:
    text = Text()
    text.append(printable(status.mountpoint), style="bold")
    text.append(f"  {printable(status.profile)}  ")
    text.append(status.state, style=_COLOURS[status.state])
    text.append(f"  pid {status.pid}, up {human_time(status.uptime)}{', read-only' if status.read_only else ''}")
    return text


def _stores(status: MountStatus) -> Table:
    table = Table(box=None, padding=(0, 0, 0, 2), header_style="dim")
    for name in ("store", "role", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("reads", "bytes", "errors", "waiting", "oldest"):
        table.add_column(name, justify="right", no_wrap=True)
    for replica in status.replicas:
        role = f"replica {replica.read_priority}{', read-only' if replica.read_only else ''}"
        waiting = f"{replica.pending:,}" if replica.pending else "-"
        oldest = human_time(replica.oldest_pending_seconds) if replica.pending else "-"
        table.add_row(*_common(replica, role), waiting, oldest)
    compared = status.primary.conditional_writes is ConditionalWrites.COMPARED
    table.add_row(*_common(status.primary, f"primary{', no conditional writes' if compared else ''}"), "", "")
    return table


def _troubles(status: MountStatus) -> list[Text]:
    """Why stores are down, one line each."""
    stores: tuple[PrimaryStatus | ReplicaStatus, ...] = (*status.replicas, status.primary)
    return [
        Text(
            printable(f"  {store.profile} is down: {store.last_error.removeprefix(f'{store.profile}: ')}"), style="red"
        )
        for store in stores
        if store.state is StoreState.DOWN and store.last_error
    ]


def _common(store: PrimaryStatus | ReplicaStatus, role: str) -> tuple[RenderableType, ...]:
    return (
        Text(printable(store.profile)),
        role,
        Text(store.state, style=_COLOURS[store.state]),
        f"{store.hits:,}",
        human_size(store.bytes_read),
        Text(f"{store.errors:,}", style="red" if store.errors else ""),
    )


def _summary(status: MountStatus) -> str:
    cache, memory, staging = status.cache, status.memory, status.staging
    parts = [f"memory {human_size(memory.used)} of {human_size(memory.limit)}"]
    if memory.waiting:
        parts.append(f"{memory.waiting:,} reads wait for memory")
    if cache.limit:
        parts.append(f"cache {human_size(cache.bytes)} of {human_size(cache.limit)}")
        parts.append(f"{cache.hits:,} hits, {cache.misses:,} misses")
    parts += [
        f"{staging.files:,} to upload" + (f" ({human_size(staging.bytes)})" if staging.files else ""),
        f"{status.journal.pending:,} in the journal",
    ]
    if status.journal.recovering:
        parts.append(f"{status.journal.recovering:,} of an ended mount being settled")
    if status.journal.kept:
        parts.append(f"{status.journal.kept:,} left behind (`mscfs recover`)")
    if status.skipped_keys:
        parts.append(f"{status.skipped_keys:,} keys left out")
    if status.conflicts:
        parts.append(f"{status.conflicts:,} names both file and directory")
    return "  " + " · ".join(parts)
