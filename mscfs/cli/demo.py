"""`mscfs demo`: three directories as stores, a mount, and a story that shows what replicas are for."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from mscfs.cli import daemon, preflight, umount
from mscfs.cli.demo_story import STORES, DemoError, Step, Story, Telling
from mscfs.cli.mount_options import MountOptions
from mscfs.cli.mount_table import leave_nothing
from mscfs.cli.plan import make_plan
from mscfs.cli.program import examples, note
from mscfs.telemetry import registry

_CONFIGURATION = """\
# Three directories play three stores. `demo` is the primary; reads ask `near` first, then `far`, then the primary.
profiles:
  demo:
    storage_provider: {{type: file, options: {{base_path: {directory}/primary}}}}
    replicas:
      - {{replica_profile: near, read_priority: 1}}
      - {{replica_profile: far, read_priority: 2}}
    mscfs:
      page_cache: false   # every read asks a store, so that you see which one
      hedging: false
      metadata_ttl: 1s
  near:
    storage_provider: {{type: file, options: {{base_path: {directory}/near}}}}
  far:
    storage_provider: {{type: file, options: {{base_path: {directory}/far}}}}
"""


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PACE = 1.0
"""Seconds after each step in which a person can read it."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("mscfs demo", "mscfs demo /mnt/demo", "mscfs demo --once"))(demo)


def demo(
    mountpoint: Annotated[
        Path | None, typer.Argument(metavar="MOUNTPOINT", help="An existing directory; else a temporary one.")
    ] = None,
    *,
    once: Annotated[
        bool, typer.Option("--once", help="End after the story; 0 only if everything was as it should be.")
    ] = False,
) -> None:
    """See replicas at work: no account, nothing to configure, nothing left behind.

    Makes a primary and two replicas in a temporary directory, mounts them, reads, writes, takes a replica away and
    brings it back. Then the mount is yours to try, until Ctrl-C.
    """
    preflight.check_fuse(allow_other=False)
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    console = Console(highlight=False)
    with _stage(mountpoint) as story:
        try:
            _perform(story, console, once=once)
        except KeyboardInterrupt:
            if not story.finished:
                raise


def _perform(story: Story, console: Console, *, once: bool) -> None:
    telling = Telling(story)
    if console.is_terminal and not once:
        with Live(get_renderable=telling.view, console=console, refresh_per_second=5):
            story.tell(on_step=partial(_show, console, telling))
            threading.Event().wait()
    story.tell(on_step=lambda step: console.print(telling.line(step)))
    console.print(Text(), telling.status())
    if not once:
        console.print(telling.hints(), soft_wrap=True)  # what is to be typed stays on its line
        threading.Event().wait()


def _show(console: Console, telling: Telling, step: Step) -> None:
    console.print(telling.line(step))
    time.sleep(_PACE)


@contextmanager
def _stage(mountpoint: Path | None) -> Iterator[Story]:
    """Stores with files, and a mount; all of it is gone afterwards, whatever happens."""
    directory = Path(tempfile.mkdtemp(prefix="mscfs-demo-"))
    try:
        # What the daemon keeps goes away with the rest; mounts and sockets stay where `mscfs status` finds them.
        os.environ["XDG_STATE_HOME"] = str(directory / "state")
        os.environ["XDG_CACHE_HOME"] = str(directory / "cache")
        for store in STORES:
            (directory / store).mkdir()
        configuration = directory / "config.yaml"
        configuration.write_text(_CONFIGURATION.format(directory=directory))
        if mountpoint is None:
            mountpoint = directory / "mount"
            mountpoint.mkdir()
        story = Story(directory, mountpoint)
        story.fill_primary()
        plan = make_plan("demo", mountpoint, MountOptions(), config_file=configuration)
        try:
            daemon.start(plan)
            yield story
        except (daemon.StartError, DemoError):
            log = daemon.log_file("demo", plan.mountpoint).read_text(errors="replace")
            for line in log.splitlines()[-5:]:
                note(line)
            raise
        finally:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it behind
            _end(plan.mountpoint)
    finally:
        shutil.rmtree(directory)


def _end(mountpoint: Path) -> None:
    record = registry.find(mountpoint)
    if record is None:
        leave_nothing(mountpoint)
        return
    # Somebody's shell may still stand in it: it is detached all the same, the directory is about to go.
    umount.detach(mountpoint, lazy=True)
    umount.wait_for_end(record, {})


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
