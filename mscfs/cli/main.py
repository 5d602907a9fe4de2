"""The program `mscfs`."""

from __future__ import annotations

import gc
import sys
from contextlib import nullcontext

from mscfs.cli import mount_helper
from mscfs.cli.daemon import Daemon
from mscfs.cli.program import run

_FOREGROUND = {"-f", "--foreground"}


def main() -> None:
    """Run the command line. Ends the process."""
    arguments = sys.argv[1:]
    if mount_helper.is_call_of_mount(arguments):
        run(lambda: mount_helper.mount(arguments))
    # A node waits for it: what a mount needs is loaded while this process finds out what to mount.
    is_awaited = arguments[:1] == ["mount"] and _FOREGROUND.isdisjoint(arguments)
    with Daemon() if is_awaited else nullcontext() as daemon:
        run(lambda: _run_command(arguments, daemon))


def _run_command(arguments: list[str], daemon: Daemon | None) -> None:
    if daemon is not None:
        gc.disable()  # it ends soon, and mostly loads
    from mscfs.cli.app import make_app  # noqa: PLC0415 - loads long

    make_app(arguments)(args=arguments, prog_name="mscfs", obj=daemon)


if __name__ == "__main__":
    main()
