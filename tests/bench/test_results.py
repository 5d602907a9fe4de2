"""Medians, ratios, cold figures that were not cold, targets, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from tests.bench import report, tables
from tests.bench.plot import draw
from tests.bench.results import Results, Sample, Topic, ratio
from tests.bench.targets import TARGETS, Target

SPEED = Topic("1", "large object, cold", "MiB/s", cold=True)
TIME = Topic("11", "start to ready", "ms", higher_is_better=False)


def measured(**systems: list[float]) -> Results:
    results = Results(systems={name: {"version": "1", "settings": "defaults"} for name in systems if name != "raw"})
    results.machine = {"date": "2026-01-01", "cores": 2, "memory": "24 GiB", "kernel": "6", "python": "3"}
    for system, values in systems.items():
        for value in values:
            results.figure(SPEED, system, is_ceiling=system == "raw").add(Sample(value, wire=1.0))
    return results


def test_a_figure_is_the_median_of_its_runs():
    results = measured(mscfs=[1, 100, 3, 2, 50])
    assert results.figure(SPEED, "mscfs").value == 3


def test_ratios_tell_how_many_times_as_good():
    results = measured(mscfs=[300], rclone=[100], s3fs=[150], raw=[600])
    mscfs = results.figure(SPEED, "mscfs")
    assert ratio(mscfs, results.best_peer(SPEED, but="mscfs")) == 2
    assert ratio(mscfs, results.ceiling(SPEED)) == 0.5
    for system, value in (("mscfs", 500.0), ("rclone", 100.0)):
        results.figure(TIME, system).add(Sample(value))
    assert ratio(results.figure(TIME, "mscfs"), results.best_peer(TIME, but="mscfs")) == pytest.approx(0.2)
    assert ratio(results.figure(TIME, "mscfs"), None) is None


def test_a_variant_of_a_system_is_not_its_peer():
    results = measured(mscfs=[1], rclone=[2])
    results.figure(SPEED, "mscfs, primary alone").add(Sample(9, wire=1.0))
    assert results.best_peer(SPEED, but="mscfs").system == "rclone"


def test_a_cold_figure_counts_only_when_as_much_was_sent_as_was_read():
    results = measured(mscfs=[100], rclone=[50])
    results.figure(SPEED, "mscfs").add(Sample(1000, wire=0.5))
    figure = results.figure(SPEED, "mscfs")
    assert not figure.counts
    assert "0.50" in figure.invalid
    assert results.get("1", SPEED.what, "mscfs") is None
    assert results.best_peer(SPEED, but="s3fs").system == "rclone"
    assert "INVALID" in next(tables.rows(results, SPEED))[-1]


def test_a_warm_figure_may_come_without_bytes_from_the_server():
    figure = Results().figure(Topic("2", "warm", "MiB/s"), "mscfs")
    figure.add(Sample(1.0, wire=0.0))
    assert figure.counts


def test_a_failure_is_shown_and_compared_with_nothing():
    results = measured(mscfs=[100])
    results.figure(SPEED, "s3fs").error = "no such option"
    assert results.best_peer(SPEED, but="mscfs") is None
    rows = {row[0]: row for row in tables.rows(results, SPEED)}
    assert rows["s3fs"][1] == "failed"
    assert rows["s3fs"][-1] == "no such option"


def test_json_keeps_everything(tmp_path: Path):
    results = measured(mscfs=[1, 2], raw=[5])
    results.figure(TIME, "mscfs").add(Sample(7, extras={"p99 ms": 1.5}, pss=1 << 20, cpu=0.5))
    results.absent["geesefs"] = "a release"
    results.save(tmp_path / "a.json")
    again = Results.load(tmp_path / "a.json")
    assert again == results


def test_what_is_measured_anew_replaces_only_its_work_and_systems(tmp_path: Path):
    old = measured(mscfs=[1], rclone=[2])
    old.figure(TIME, "mscfs").add(Sample(7))
    old.figure(Topic("1", "gone by now", "MiB/s"), "mscfs").add(Sample(1))
    new = measured(mscfs=[10])
    old.update(new, ["1"])
    assert old.figure(SPEED, "mscfs").value == 10
    assert old.figure(SPEED, "rclone").value == 2
    assert old.figure(TIME, "mscfs").value == 7
    assert ("1", "gone by now", "mscfs") not in old.figures


@pytest.mark.parametrize(
    ("reached", "at_least", "expected"),
    [(2.0, True, True), (1.9, True, False), (2.0, False, True), (2.1, False, False), (None, True, None)],
)
def test_targets_are_met_at_their_bound(reached: float | None, at_least: bool, expected: bool | None):
    target = Target("1", "x", lambda results: reached, 2.0, at_least=at_least)
    assert target.judge(Results()) == (reached, expected)


def test_every_target_names_figures_that_the_works_take():
    """A target whose topic is spelled differently from the work's would never be measured."""
    from tests.bench.works import grid, large, listing, random_reads, replica, small, starting, streams, writing

    modules = (large, listing, replica, small, starting, streams, writing)
    topics = [value for module in modules for value in vars(module).values() if isinstance(value, Topic)]
    topics += [*random_reads.TOPICS.values(), *(section.topic(1) for section in grid.SECTIONS)]
    results = Results()
    extras = dict.fromkeys(("reads", "bytes for an entry", "share of close", "median ms", "slowest KiB"), 1.0)
    for topic in topics:
        systems = ("mscfs", "rclone", small.WITHOUT_SIBLINGS, replica.ALONE)
        for system in systems:
            results.figure(topic, system).add(Sample(1.0, wire=1.0, pss=1, extras=dict(extras)))
        results.figure(topic, "a ceiling", is_ceiling=True).add(Sample(1.0, wire=1.0))
    for target in TARGETS:
        assert target.judge(results)[0] is not None, target.what


def test_tables_and_plot_are_put_into_the_document(tmp_path: Path):
    document = tmp_path / "benchmarks.md"
    document.write_text(f"before\n{report.BEGIN}\nof last year\n{report.END}\nafter\n")
    report.write_report(measured(mscfs=[300], rclone=[100], raw=[600]), document)
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "of last year" not in text
    assert "| mscfs | 300 | 3.00 | 0.50 |" in text
    assert "Medians of 1 runs." in text
    ET.parse(tmp_path / "benchmarks.svg")


def test_the_repositorys_document_has_a_place_for_figures():
    text = report.DOCUMENT.read_text()
    assert text.index(report.BEGIN) < text.index(report.END)


def test_bars_are_as_long_as_figures_are_good():
    svg = ET.fromstring(draw(measured(mscfs=[300], rclone=[100]), [SPEED], ["mscfs", "rclone"]))
    widths = [float(bar.get("width")) for bar in svg.iter("{http://www.w3.org/2000/svg}rect") if bar.get("x")]
    assert widths[0] == pytest.approx(3 * widths[1])


def test_a_terminal_shows_absent_systems_failures_and_targets():
    results = measured(mscfs=[300], raw=[600])
    results.absent["geesefs"] = "a release of GeeseFS"
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115 - rich writes it
    tables.show(results, console)
    text = console.export_text()
    assert "geesefs is not here: a release of GeeseFS" in text
    assert "Targets of mscfs" in text


def test_a_work_of_many_topics_is_one_table():
    results = Results()
    for jobs, mscfs, rclone in ((1, 10, 20), (2, 30, 10)):
        topic = Topic("10", f"fio P1.{jobs}", "MiB/s")
        results.figure(topic, "mscfs").add(Sample(mscfs))
        results.figure(topic, "rclone").add(Sample(rclone))
        results.figure(topic, "s3fs").error = "no"
    columns, lines = tables.matrix(results, "10")
    assert columns == ("what", "mscfs", "rclone", "s3fs", "mscfs × best peer")
    assert lines == [("fio P1.1", "10", "20", "failed", "0.50"), ("fio P1.2", "30", "10", "failed", "3.00")]
    assert tables.markdown(results).count("fio P1.1") == 1


def test_a_figure_that_an_interruption_left_empty_is_not_shown():
    results = measured(mscfs=[300])
    results.figure(SPEED, "rclone")
    results.figure(Topic("10", "fio P1.1", "MiB/s"), "mscfs")
    assert [row[0] for row in tables.rows(results, SPEED)] == ["mscfs"]
    assert "fio P1.1" not in tables.markdown(results)
