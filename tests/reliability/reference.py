"""The contract as a model: what the primary held when, and what each mount may show of it (R1, R2, W4, W5, W8)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Held:
    """One content of one key on the primary; each change makes another, even of equal bytes."""

    number: int
    data: bytes


@dataclass
class Primary:
    """The history of each key: since when it held what; None: nothing."""

    histories: dict[str, list[tuple[float, Held | None]]]
    _number: int = 0

    def change(self, key: str, data: bytes | None, now: float) -> Held | None:
        self._number += 1
        held = None if data is None else Held(self._number, data)
        self.histories[key].append((now, held))
        return held

    def at_present(self, key: str) -> Held | None:
        return self.histories[key][-1][1]


@dataclass(eq=False)
class Node:
    """A file that a mount has open, or that is dirty there: an inode.

    `candidates`: the versions that its handles may be pinned to, by what is known so far; None stands for a file that
    was never on the primary.
    """

    key: str
    number: int
    candidates: list[Held | None]
    handles: int = 0
    staged: bytes | None = None
    is_dirty: bool = False
    replaces: bool = False
    """It may be put whatever the primary holds (O_TRUNC, or a new file); else only onto its base."""
    bases: list[Held | None] = field(default_factory=list)
    """What the staged content may have been made from."""
    is_unlinked: bool = False
    is_detached: bool = False
    """It was changed elsewhere: the name means another inode by now."""

    @property
    def is_new(self) -> bool:
        return self.candidates == [None]

    def matching(self, data: bytes, offset: int = 0, size: int | None = None) -> list[Held | None]:
        """The candidates of which `data` is that part."""
        end = None if size is None else offset + size
        return [held for held in self.candidates if (held.data if held else b"")[offset:end] == data]


@dataclass
class View:
    """What one mount knows: its nodes by inode number, and what it changed itself."""

    ttl: float
    nodes: dict[int, Node] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)
    """The position in a key's history of the last change made here: nothing older may be shown."""
    began: dict[str, int] = field(default_factory=dict)
    """The same for the beginning of the mount, which knows nothing older unless it cannot ask."""
    hidden: dict[str, list[Held]] = field(default_factory=dict)
    """Unlinked here while they were open: on the primary until the last handle closes."""

    orphans: list[tuple[str, bytes, list[Held | None]]] = field(default_factory=list)
    """Closed, and not uploaded: key, content, what it may have been made from. The next mount sends what fits (W4)."""

    def local(self, key: str) -> Node | None:
        """The node of a name whose truth is here."""
        for node in self.nodes.values():
            has_name = node.key == key and not node.is_unlinked and not node.is_detached
            if has_name and (node.is_dirty or node.is_new):
                return node
        return None

    def believable(self, primary: Primary, key: str, now: float, *, unbounded: bool) -> list[Held | None]:
        """What a look at the name may show. `unbounded`: the primary is down, only what was changed here is certain."""
        history = primary.histories[key]
        expired = [at for at, (since, _) in enumerate(history) if since <= now - self.ttl]
        first = self.floors.get(key, 0)
        if not unbounded:
            first = max([first, self.began.get(key, 0), *expired[-1:]])
        hidden = self.hidden.get(key, [])
        believable: list[Held | None] = []
        for _, held in history[first:]:
            if held not in hidden:
                believable.append(held)
            else:
                # Of several thinkable versions only the one that was open there is gone.
                believable += [None] if len(hidden) == 1 else [None, held]
        return believable

    def starts(self, primary: Primary) -> None:
        """The mount began now."""
        self.began = {key: len(history) - 1 for key, history in primary.histories.items()}

    def changed(self, primary: Primary, key: str) -> None:
        """The last change of the key was made here."""
        self.floors[key] = len(primary.histories[key]) - 1
