"""The metrics of a mount in OpenTelemetry's data model, and an exporter that sends them. Imports the SDK.

A mount has its numbers already, a histogram among them, so they are handed to the exporter as they are: instruments of
the SDK would count a second time, with threads of their own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.core import Metric as Family
from prometheus_client.core import Sample

from mscfs.errors import ConfigError
from mscfs.telemetry.metrics import MountCollector
from mscfs.telemetry.otel_attributes import Value, collect, import_class
from mscfs.telemetry.status import MountStatus

_EXPORTERS = {
    "console": "opentelemetry.sdk.metrics.export.ConsoleMetricExporter",
    "otlp": "opentelemetry.exporter.otlp.proto.http.metric_exporter.OTLPMetricExporter",
}
_UNITS = {"_seconds": "s", "_bytes": "By"}


class OtelSender:
    """Sends documents with the exporter and the attributes of `opentelemetry.metrics`; a timeout in seconds.

    Raises ConfigError or ImportError, or what the exporter's class raises when its options are wrong.
    """

    def __init__(self, settings: Mapping[str, Any], timeout: float, describe: Callable[[], Mapping[str, Any]]) -> None:
        # It logs each attempt, with the endpoint and its query: what matters is said once, by `otel`.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        kind = settings["exporter"]["type"]
        options = dict(settings["exporter"].get("options") or {})
        if kind not in _EXPORTERS and "." not in kind:
            raise ConfigError(f"opentelemetry.metrics.exporter: no type '{kind}' is known")
        if kind == "otlp":
            options.setdefault("timeout", timeout)
        self.destination = _place(options.get("endpoint")) or f"the exporter {kind}"
        self._timeout = timeout
        self._attributes = collect(settings.get("attributes", ()), describe)
        self._scope = InstrumentationScope("mscfs", version("mscfs"))
        self._resource = Resource.create({"service.name": "mscfs", "service.version": version("mscfs")})
        self._exporter: MetricExporter = import_class(_EXPORTERS.get(kind, kind))(**options)

    def send(self, document: MountStatus) -> bool:
        """Whether the metrics of the document arrived."""
        scope = ScopeMetrics(self._scope, to_metrics(document, self._attributes, time.time_ns()), "")
        data = MetricsData([ResourceMetrics(self._resource, [scope], "")])
        return self._exporter.export(data, timeout_millis=self._timeout * 1000) is MetricExportResult.SUCCESS


def to_metrics(document: MountStatus, attributes: Mapping[str, Value], now: int) -> list[Metric]:
    """The families of a mount, under the same names and with these attributes beside their labels; `now` in ns.

    Their own labels count more: without them two numbers would be one.
    """
    start = int(document.started * 1e9)
    metrics = []
    for family in MountCollector([document]).collect():
        unit = next((unit for ending, unit in _UNITS.items() if family.name.endswith(ending)), "")
        metrics.append(Metric(family.name, family.documentation, unit, _data(family, attributes, start, now)))
    return metrics


def _data(family: Family, attributes: Mapping[str, Value], start: int, now: int) -> Sum | Gauge | Histogram:
    if family.type == "histogram":
        points = [
            _histogram(samples, {**attributes, **dict(labels)}, start, now)
            for labels, samples in _by_labels(family.samples).items()
        ]
        return Histogram(points, AggregationTemporality.CUMULATIVE)
    numbers = [
        NumberDataPoint({**attributes, **sample.labels}, start, now, _number(sample.value)) for sample in family.samples
    ]
    if family.type == "counter":
        return Sum(numbers, AggregationTemporality.CUMULATIVE, is_monotonic=True)
    return Gauge(numbers)


def _by_labels(samples: Iterable[Sample]) -> dict[tuple[tuple[str, str], ...], list[Sample]]:
    grouped: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in samples:
        labels = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        grouped.setdefault(labels, []).append(sample)
    return grouped


def _histogram(samples: Sequence[Sample], attributes: Mapping[str, Value], start: int, now: int) -> HistogramDataPoint:
    buckets = [(sample.labels["le"], int(sample.value)) for sample in samples if "le" in sample.labels]
    [total] = [sample.value for sample in samples if sample.name.endswith("_sum")]
    upto = [0, *(number for _, number in buckets)]
    return HistogramDataPoint(
        attributes=attributes,
        start_time_unix_nano=start,
        time_unix_nano=now,
        count=upto[-1],
        sum=total,
        bucket_counts=[more - less for less, more in pairwise(upto)],
        explicit_bounds=[float(bound) for bound, _ in buckets[:-1]],
        min=None,  # type: ignore[arg-type]  # not known, which the protocol allows
        max=None,  # type: ignore[arg-type]
    )


def _number(value: float) -> int | float:
    return int(value) if isinstance(value, bool) else value


def _place(endpoint: object) -> str:
    """Host and port of a URL: a user or a query in it may be secret."""
    try:
        parts = urlsplit(str(endpoint or ""))
        return ":".join(str(part) for part in (parts.hostname, parts.port) if part)
    except ValueError:
        return ""
