"""Whether the server is fast enough not to be what is measured: asked first, and printed."""

from __future__ import annotations

from tests.bench.bench import MIB, Bench, Outcome
from tests.bench.results import Topic

GETS = Topic("0", "the server: small objects to obstore", "GET/s")
RANGES = Topic("0", "the server: one large object to obstore", "MiB/s")
_GETS_FLOOR = 6000
_RANGES_FLOOR = 1536


def check_server(bench: Bench) -> None:
    """Measure what the raw client gets in the best of a few ways. Below the floor it only warns: ratios still hold."""
    bench.say("the server, asked by obstore alone:")
    keys = bench.small_keys[:2000]
    for processes, threads in ((1, 4), (1, 16), (2, 4)):

        def get(processes: int = processes, threads: int = threads) -> Outcome:
            result = bench.raw("get_many", bench.small, keys=keys, threads=threads, processes=processes)
            return Outcome(len(keys) / result["seconds"], int(result["bytes"]))

        bench.take(GETS, f"{processes} × {threads} threads", get)
    size = bench.scale.large
    for threads in (2, 4, 8):

        def read(threads: int = threads) -> Outcome:
            result = bench.raw("get_ranges", bench.large, key="large", size=size, threads=threads)
            return Outcome(size / MIB / result["seconds"], int(result["bytes"]))

        bench.take(RANGES, f"{threads} ranges at once", read)
    for topic, floor in ((GETS, _GETS_FLOOR), (RANGES, _RANGES_FLOOR)):
        best = max((figure.value for figure in bench.results.of(topic) if figure.counts), default=0.0)
        if best < floor:
            bench.say(f"  slower than the {floor} {topic.unit} it was made for: this machine is slow or busy now")
