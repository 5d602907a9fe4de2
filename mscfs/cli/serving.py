"""A mount in this process."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sdnotify import SystemdNotifier

from mscfs.cli.mount_table import leave_nothing
from mscfs.cli.plan import Plan
from mscfs.cli.program import what_failed
from mscfs.errors import MountError, MscfsError
from mscfs.log import configure_logging
from mscfs.telemetry import registry

logger = logging.getLogger(__name__)


def load() -> None:
    """Import what only a process needs in which a mount runs."""
    gc.disable()  # what is loaded stays: looking for garbage in it takes an eighth of the time
    import mscfs.fuse.session  # noqa: PLC0415
    import mscfs.telemetry.scrape  # noqa: PLC0415
    import mscfs.telemetry.service  # noqa: F401, PLC0415


def serve(plan: Plan, report_ready: Callable[[str], None] = lambda _: None, log: Path | None = None) -> None:
    """Mount in this process; returns when unmounted. Nothing stays mounted, whatever happens.

    `report_ready` gets what is wrong with the primary, if the mount begins degraded; `log` is the file that
    standard error goes to, when it is the mount's own.
    Under systemd it tells when it is ready and when it stops (sd_notify(3)). Raises MscfsError when it cannot start;
    the traceback of any other error is in the log.
    """
    configure_logging(logging.DEBUG if plan.verbose else logging.INFO, file=log)
    try:
        _serve(plan, report_ready)
    except MscfsError:
        raise
    except Exception:
        logger.exception("the mount ends because of a bug")
        raise
    finally:
        registry.unregister()
        leave_nothing(plan.mountpoint)


@contextmanager
def _in_runtime_directory() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "free space there, or choose another directory with XDG_RUNTIME_DIR"
        raise MountError(f"{what_failed(error)}; commands find the mount by its runtime directory: {advice}") from error


def _serve(plan: Plan, report_ready: Callable[[str], None]) -> None:
    from mscfs.fuse.session import Mount, MountRequest, run  # noqa: PLC0415 - see load
    from mscfs.fuse.watchdog import INTERVAL, Watchdog, ask  # noqa: PLC0415
    from mscfs.telemetry.scrape import listening  # noqa: PLC0415
    from mscfs.telemetry.scrape import serve as serve_scrapes  # noqa: PLC0415
    from mscfs.telemetry.service import MountService  # noqa: PLC0415

    faulthandler.enable()  # a mount that systemd's watchdog ends says where each thread was
    systemd = SystemdNotifier()

    def announce(trouble: str) -> None:
        with _in_runtime_directory():
            registry.register(
                plan.profile,
                plan.mountpoint,
                started=time.time(),
                config_file=plan.config_file,
                shutdown_timeout=plan.config.profiles[plan.profile].mscfs.shutdown_timeout,
            )
        systemd.notify(f"READY=1\nSTATUS=profile {plan.profile} on {plan.mountpoint}")
        report_ready(trouble)

    async def answer_commands(running: Mount) -> None:
        with _in_runtime_directory():
            await MountService(running).serve()

    async def tell_stopping(running: Mount) -> None:
        await running.wait_stop()
        systemd.notify("STOPPING=1\nSTATUS=uploading what is not on the primary yet")

    async def watch(running: Mount) -> None:
        def question() -> None:
            if not running.stopping:  # then there may be no mount, only an upload that goes on
                ask(plan.mountpoint)

        def alive() -> None:
            if patience:
                systemd.notify("WATCHDOG=1")

        patience = int(os.environ.get("WATCHDOG_USEC") or 0) / 1e6  # systemd's; 0 when it does not want to hear of us
        await Watchdog(question, alive, interval=min(INTERVAL, patience / 2 or INTERVAL)).run()

    async def answer_scrapes(running: Mount) -> None:
        await serve_scrapes(scraped, MountService(running).exposition)

    async def send_metrics(running: Mount) -> None:
        from mscfs.telemetry import otel  # noqa: PLC0415 - few are configured so

        await otel.run(plan.config, plan.profile, MountService(running).document, running.wait_stop)

    services = [answer_commands, tell_stopping, watch, answer_scrapes]
    if "exporter" in plan.config.opentelemetry.get("metrics", {}):
        services.append(send_metrics)
    request = MountRequest(plan.config, plan.profile, plan.mountpoint, plan.read_only, plan.allow_other, plan.no_exec)
    with listening(plan.config.profiles[plan.profile].mscfs.metrics_address) as scraped:
        run(request, announce, services)
