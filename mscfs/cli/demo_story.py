"""What the demo does, step by step, and checks: every step proves what it says, or the demo fails."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from mscfs.cli.status_view import render
from mscfs.errors import MountError
from mscfs.telemetry import control, registry
from mscfs.telemetry.status import MountStatus, ReplicaStatus, StoreState

STORES = ("primary", "near", "far")
_FILES = 24
_SIZE = 200 * 1024
_PATIENCE = 30.0
_PAUSE = 0.1


class DemoError(MountError):
    """Something was not as the demo says."""


@dataclass
class Step:
    """One line of the story."""

    title: str
    state: Literal["under way", "done", "failed"] = "under way"
    detail: str = ""


class Story:
    """The steps. `directory` holds the stores `primary`, `near` and `far`."""

    def __init__(self, directory: Path, mountpoint: Path) -> None:
        self.finished = False
        self.directory = directory
        self.mountpoint = mountpoint
        self.steps: list[Step] = []
        self._contents: dict[str, bytes] = {}
        self._on_step: Callable[[Step], object] | None = None

    def fill_primary(self) -> None:
        """Put files on the primary, before anything is mounted."""
        for name in self._new_files("photos"):
            path = self.directory / "primary" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(self._contents[name])

    def tell(self, on_step: Callable[[Step], object]) -> None:
        """Run through all steps; `on_step` gets each that is done. Raises DemoError."""
        self._on_step = on_step
        self._read_from_primary()
        self._back_fill()
        self._write()
        self._read_from_near()
        self._lose_near()
        self._write_without_near()
        self._near_returns()
        self.finished = True

    def status(self) -> MountStatus:
        """The mount's status document. Raises MountError."""
        record = registry.find(self.mountpoint)
        if record is None:
            raise DemoError(f"the mount at {self.mountpoint} has ended")
        return msgspec.convert(control.request(Path(record.socket), "status"), MountStatus)

    # -- the steps ------------------------------------------------------------------------------------------------

    def _read_from_primary(self) -> None:
        with self._step(f"Read {_FILES} files that only the primary has") as step:
            step.detail = self._read("photos", expect="demo")

    def _back_fill(self) -> None:
        with self._step("Meanwhile mscfs copies them to both replicas (back-fill)") as step:
            self._wait_for("the replicas to have the photos", lambda: self._hold_all("photos"))
            step.detail = f"{_FILES} files on near, {_FILES} on far, byte for byte"

    def _write(self) -> None:
        with self._step(f"Write {_FILES} files; close() returns when the primary has them") as step:
            for name in self._new_files("results"):
                path = self.mountpoint / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(self._contents[name])
                if self._stored("primary", name) != self._contents[name]:
                    raise DemoError(f"{name} is not on the primary although close() returned")
            step.detail = "all on the primary at once; the replicas follow"
            self._wait_for("the replicas to have the results", lambda: self._hold_all("results"))

    def _read_from_near(self) -> None:
        with self._step("Read everything again: now the nearest replica answers") as step:
            step.detail = self._read("photos", "results", expect="near")

    def _lose_near(self) -> None:
        with self._step("Unplug near (its directory is moved away) and read on") as step:
            (self.directory / "near").rename(self.directory / "near-unplugged")
            step.detail = self._read("photos", "results", expect="far")

    def _write_without_near(self) -> None:
        with self._step("Write 3 files without near: the journal remembers what near lacks") as step:
            for name in self._new_files("later", 3):
                path = self.mountpoint / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(self._contents[name])
            self._wait_for("far to have the new files", lambda: self._holds("far", "later"))
            self._wait_for("the status to say that near is down", lambda: self._near().state is StoreState.DOWN)
            waiting = self._near().pending
            if waiting < 3 or (self.directory / "near").exists():
                raise DemoError(f"near is gone; {waiting} entries wait for it, at least 3 should")
            step.detail = f"{waiting} entries wait for near; nothing was written where it was"

    def _near_returns(self) -> None:
        with self._step("Plug near in again: it catches up") as step:
            (self.directory / "near-unplugged").rename(self.directory / "near")
            record = registry.find(self.mountpoint)
            if record is None or control.request(Path(record.socket), "drain", {"timeout": _PATIENCE})["remaining"]:
                raise DemoError("near is back and does not get what it missed")
            if not self._holds("near", "later"):
                raise DemoError("near caught up and does not hold what was written")
            step.detail = "near holds all files again, byte for byte"

    # -- how they do it -------------------------------------------------------------------------------------------

    @contextmanager
    def _step(self, title: str) -> Iterator[Step]:
        step = Step(title)
        self.steps.append(step)
        try:
            yield step
        except BaseException:
            step.state = "failed"
            raise
        step.state = "done"
        if self._on_step:
            self._on_step(step)

    def _new_files(self, directory: str, count: int = _FILES) -> list[str]:
        names = [f"{directory}/{number:02}.bin" for number in range(count)]
        self._contents.update({name: os.urandom(_SIZE) for name in names})
        return names

    def _read(self, *directories: str, expect: str) -> str:
        """Read files through the mount and compare them; says who served them, and insists on it."""
        names = [name for name in self._contents if name.split("/")[0] in directories]
        before = self._reads()
        for name in names:
            if (self.mountpoint / name).read_bytes() != self._contents[name]:
                raise DemoError(f"{name} was read with other bytes than were written")
        # A reader has its bytes a moment before they are counted.
        self._wait_for(
            "all reads to be counted", lambda: sum(self._reads().values()) >= sum(before.values()) + len(names)
        )
        served = {store: count - before[store] for store, count in self._reads().items()}
        if served.pop(expect) < len(names) or any(served.values()):
            raise DemoError(f"{expect} should have served {len(names)} reads; the others served {served}")
        return f"{len(names)} files, all from {expect if expect != 'demo' else 'the primary'}"

    def _reads(self) -> dict[str, int]:
        status = self.status()
        replicas = {replica.profile: replica.hits for replica in status.replicas}
        return {status.primary.profile: status.primary.hits, **replicas}

    def _near(self) -> ReplicaStatus:
        return self.status().replicas[0]

    def _hold_all(self, directory: str) -> bool:
        return self._holds("near", directory) and self._holds("far", directory)

    def _holds(self, store: str, directory: str) -> bool:
        names = [name for name in self._contents if name.split("/")[0] == directory]
        return all(self._stored(store, name) == self._contents[name] for name in names)

    def _stored(self, store: str, name: str) -> bytes | None:
        try:
            return (self.directory / store / name).read_bytes()
        except FileNotFoundError:
            return None

    def _wait_for(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not holds():
            if time.monotonic() > deadline:
                raise DemoError(f"waited {_PATIENCE:g} s for {what}")
            time.sleep(_PAUSE)


class Telling:
    """How the story looks."""

    def __init__(self, story: Story) -> None:
        self._story = story

    def view(self) -> RenderableType:
        """What changes: the step under way, the stores, and after the last step what to try."""
        parts: list[RenderableType] = [self.line(step) for step in self._story.steps if step.state == "under way"]
        parts += [Text(), self.status()]
        if self._story.finished:
            parts.append(self.hints())
        return Group(*parts)

    def line(self, step: Step) -> Text:
        """One step."""
        mark, colour = {"under way": ("…", "yellow"), "done": ("✓", "green"), "failed": ("✗", "red")}[step.state]
        text = Text(f"{mark} ", style=colour)
        text.append(step.title, style="bold")
        if step.detail:
            text.append(f"\n    {step.detail}", style="dim")
        return text

    def status(self) -> RenderableType:
        """The stores of the mount."""
        try:
            return render(self._story.status())
        except MountError as error:
            return Text(str(error), style="red")

    def hints(self) -> RenderableType:
        """What to type."""
        directory, mountpoint = self._story.directory, self._story.mountpoint
        place = mountpoint.name if mountpoint.parent == directory else mountpoint
        text = Text("Now it is yours. In another terminal:\n\n")
        for line in (
            f"cd {directory}",
            f"ls -l {place}/photos",
            f"cp /etc/hostname {place}/mine && ls */mine",
            f"mv near away; cat {place}/photos/* | md5sum; mv away near",
            f"{os.path.abspath(sys.argv[0])} status {place}",  # noqa: PTH100 - as it was called, links kept
        ):
            text.append(f"  {line}\n", style="cyan")
        text.append("\nCtrl-C here unmounts and removes everything.")
        return text
