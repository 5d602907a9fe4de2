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
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.live import Live

from mscfs.cli import daemon, preflight, umount
from mscfs.cli.demo_story import STORES, DemoError, Story, Telling
from mscfs.cli.mount import make_plan, start
from mscfs.cli.mount_options import MountOptions
from mscfs.cli.program import examples
from mscfs.errors import MountError
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
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    console = Console(highlight=False)
    with _stage(mountpoint) as story:
        telling = Telling(story, interactive=not once)
        if not console.is_terminal:
            story.tell(on_step=lambda step: console.print(telling.line(step)))
            console.print(telling.status())
        else:
            with Live(get_renderable=telling.view, console=console, refresh_per_second=5, transient=False):
                story.tell(on_step=lambda _: time.sleep(0 if once else _PACE))
                if not once:
                    _wait_for_interrupt()
        if not once and not console.is_terminal:
            console.print(telling.hints())
            _wait_for_interrupt()


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
            start(plan)
            yield story
        except (daemon.StartError, DemoError) as error:
            log = daemon.log_file("demo", plan.mountpoint).read_text(errors="replace")
            raise MountError("\n".join([str(error), *log.splitlines()[-5:]])) from None
        finally:
            _end(plan.mountpoint)
    finally:
        shutil.rmtree(directory)


def _end(mountpoint: Path) -> None:
    record = registry.find(mountpoint)
    if record is None:
        daemon.leave_nothing(mountpoint)
        return
    # Somebody's shell may still stand in it: it is detached all the same, the directory is about to go.
    umount.detach(mountpoint, lazy=True)
    umount.wait_for_end(record, {})


def _wait_for_interrupt() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
