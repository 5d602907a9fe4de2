"""What the staging log says to whoever comes after a kill -9 (W4)."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from mscfs.types import Version
from mscfs.vfs.staging_log import LOG, REWRITE_AT, Staged, StagingLog, read_log

BASE = Version(5, "tag with spaces", modified_ns=7)


def line(name: str, state: str, key: str = "k") -> Staged:
    return Staged.of(name, state, key, "replace", None)


def test_W4_the_last_line_of_each_file_counts(tmp_path):
    log = StagingLog(tmp_path)
    log.write(line("1", "writing"))
    log.write(line("2", "writing"))
    log.write(Staged.of("1", "sending", "a\n/\udcff é", "update", BASE))
    found = read_log(tmp_path)
    assert (found["1"].state, found["1"].key, found["1"].mode) == ("sending", "a\n/\udcff é", "update")
    assert found["1"].base == BASE
    assert (found["2"].state, found["2"].base) == ("writing", None)
    assert stat.S_IMODE((tmp_path / LOG).stat().st_mode) == 0o600  # L5


def test_there_is_no_log_before_there_is_something_to_say_and_none_when_all_is_gone(tmp_path):
    log = StagingLog(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert read_log(tmp_path) == {}
    log.write(line("1", "writing"))
    log.forget("1")
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_W4_the_log_of_files_that_stay_stays(tmp_path):
    log = StagingLog(tmp_path)
    log.write(line("1", "sending"))
    log.close()
    assert read_log(tmp_path)["1"].state == "sending"


def test_W4_half_a_line_that_a_full_disk_left_changes_nothing_and_spoils_no_other(tmp_path, monkeypatch):
    log = StagingLog(tmp_path)
    log.write(line("1", "writing"))
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:9]))
    with pytest.raises(OSError) as error:
        log.write(line("1", "sending"))
    assert error.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert read_log(tmp_path)["1"].state == "writing"
    log.write(line("2", "sending"))
    assert {name: staged.state for name, staged in read_log(tmp_path).items()} == {"1": "writing", "2": "sending"}


def test_the_log_does_not_grow_with_what_is_gone(tmp_path):
    log = StagingLog(tmp_path)
    log.write(line("kept", "sending"))
    for number in range(REWRITE_AT // 20):
        log.write(line(str(number), "writing"))
        log.write(line(str(number), "sent"))
        log.forget(str(number))
    assert (tmp_path / LOG).stat().st_size <= REWRITE_AT + 100
    log.write(line("last", "writing"))
    found = read_log(tmp_path)
    assert (found["kept"].state, found["last"].state) == ("sending", "writing")
    assert [path.name for path in tmp_path.iterdir()] == [LOG]


def test_a_log_that_cannot_be_written_anew_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("mscfs.vfs.staging_log.REWRITE_AT", 1000)
    log = StagingLog(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("pathlib.Path.replace", full)
    for number in range(200):
        log.write(line("1", "writing", f"k{number}"))
    assert (tmp_path / LOG).stat().st_size > 4000
    assert read_log(tmp_path)["1"].key == "k199"
    monkeypatch.undo()
    monkeypatch.setattr("mscfs.vfs.staging_log.REWRITE_AT", 1000)
    log.write(line("1", "writing", "last"))
    assert (tmp_path / LOG).stat().st_size < 1000
    assert read_log(tmp_path)["1"].key == "last"
