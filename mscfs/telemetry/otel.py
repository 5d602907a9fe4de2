"""Sends the metrics of a mount where `opentelemetry.metrics` of the configuration says.

It is a guest: it works in a thread of its own, one export at a time, and whatever is missing, wrong or out of reach
costs a line in the log, and the mount nothing. The SDK is imported only where it is configured, a second after the
mount began: until then somebody waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import trio

from mscfs.config.describe import describe
from mscfs.config.secrets import mask
from mscfs.config.values import Config
from mscfs.errors import ConfigError
from mscfs.telemetry.status import MountStatus

log = logging.getLogger(__name__)

EXPORT_INTERVAL = 60.0
LEAST_INTERVAL = 1.0
"""Seconds: whatever is configured, a mount is busy with other things."""
EXPORT_TIMEOUT = 30.0
LATER = 1.0
"""Seconds until the SDK is imported."""


class Sender(Protocol):
    """What sends; its methods block."""

    @property
    def destination(self) -> str:
        """Where to, for people; no secret."""
        ...

    def send(self, document: MountStatus) -> bool:
        """Whether the metrics of the document arrived."""
        ...


MakeSender = Callable[[Mapping[str, Any], float, Callable[[], Mapping[str, Any]]], Sender]


def make_sender(
    settings: Mapping[str, Any], timeout: float, describe_config: Callable[[], Mapping[str, Any]]
) -> Sender:
    """What `settings` (`opentelemetry.metrics`) ask for. Raises ImportError, or what the exporter's class raises."""
    from mscfs.telemetry.otel_sender import OtelSender  # noqa: PLC0415 - imports the SDK, which may be missing

    return OtelSender(settings, timeout, describe_config)


async def run(
    config: Config,
    profile: str,
    document: Callable[[], Awaitable[MountStatus]],
    wait_stop: Callable[[], Awaitable[None]],
    make: MakeSender = make_sender,
) -> None:
    """Send at intervals until cancelled, and once more when the mount begins to end, as long as that takes anyway."""
    settings = config.opentelemetry["metrics"]
    limiter = trio.CapacityLimiter(1)

    async def in_thread(call: Callable[..., Any], *arguments: object) -> Any:
        return await trio.to_thread.run_sync(call, *arguments, limiter=limiter, abandon_on_cancel=True)

    def described() -> Mapping[str, Any]:
        return describe(config, config.profiles[profile])

    await trio.sleep(LATER)
    try:
        reader = settings.get("reader", {}).get("options", {})
        interval = max(LEAST_INTERVAL, _seconds(reader, "export_interval_millis", EXPORT_INTERVAL))
        sender = await in_thread(make, settings, _seconds(reader, "export_timeout_millis", EXPORT_TIMEOUT), described)
    except ImportError as error:
        log.warning(
            "no metrics are sent to opentelemetry, its SDK is not installed (%s): pip install mscfs[otel]", error
        )
        return
    except Exception as error:  # noqa: BLE001 - of a class of somebody else, called as the configuration says
        log.warning("no metrics are sent to opentelemetry as it is configured: %s", mask(str(error)))
        return
    is_failing = stopping = False
    while not stopping:
        with trio.move_on_after(interval):
            await wait_stop()
            stopping = True
        reason = "no answer, or a refusal"
        try:
            arrived = await in_thread(sender.send, await document())
        except Exception as error:
            arrived, reason = False, type(error).__name__
            log.debug("sending metrics failed", exc_info=True)
        if is_failing and arrived:
            log.info("metrics reach %s again", sender.destination)
        elif not is_failing and not arrived:
            log.warning(
                "metrics do not reach %s (%s): that is tried again every %g s, without another line",
                sender.destination,
                reason,
                interval,
            )
        is_failing = not arrived


def _seconds(options: Mapping[str, Any], name: str, default: float) -> float:
    value = options.get(name, default * 1000)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigError(f"opentelemetry.metrics.reader.options.{name}: must be a number of milliseconds")
    return value / 1000
