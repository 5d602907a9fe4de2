from __future__ import annotations

from pathlib import Path

import pytest

from mscfs.journal import Journal, PendingDelete, PendingMove, PendingRename, Wish
from mscfs.types import Version
from tests.journal.processes import killed

VERSION = Version(5, "tag with spaces", modified_ns=7)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db")


def test_W4_an_upload_under_way_survives_kill_9(journal: Journal) -> None:
    killed(
        journal.path,
        "journal.begin_upload('k', Path('/staged'), 'update', Version(5, 'tag with spaces', modified_ns=7)); die()",
    )
    (upload,) = journal.uploads()
    assert (upload.key, upload.staging, upload.mode, upload.base) == ("k", Path("/staged"), "update", VERSION)
    assert upload.problem == ""


def test_W2_the_upload_goes_and_its_wishes_come_in_one_step(journal: Journal) -> None:
    killed(
        journal.path,
        "row = journal.begin_upload('k', Path('/s'), 'create', None)\n"
        "journal.finish_upload(row, [Wish('r', 'k', 'replicate', 5)]); die()",
    )
    assert journal.uploads() == []
    assert journal.lag()["r"].entries == 1


def test_W2_a_failure_in_the_middle_leaves_the_upload_and_no_wish(journal: Journal) -> None:
    row = journal.begin_upload("k", Path("/s"), "create", None)
    with pytest.raises(AttributeError):
        journal.finish_upload(row, [Wish("r", "k", "replicate"), None])  # type: ignore[list-item]
    assert [upload.id for upload in journal.uploads()] == [row]
    assert journal.lag() == {}


def test_W4_kept_uploads_say_why(journal: Journal) -> None:
    row = journal.begin_upload("k", Path("/s"), "replace", None)
    assert journal.pending() == 1
    journal.keep_upload(row, "changed elsewhere")
    assert journal.uploads()[0].problem == "changed elsewhere"
    assert journal.pending() == 0  # no drain waits for a person
    journal.drop_upload(row)
    assert journal.uploads() == []


def test_W4_orphans_are_those_of_dead_processes_and_are_taken_over_once(journal: Journal) -> None:
    journal.begin_upload("mine", Path("/s"), "replace", None)
    journal.begin_delete("mine", None)
    journal.begin_rename("mine", "target", VERSION)
    killed(
        journal.path,
        "v = Version(5, 'x')\n"
        "journal.begin_upload('theirs', Path('/t'), 'replace', None); journal.begin_delete('theirs', v)\n"
        "journal.begin_rename('theirs', 'target', v); die()",
    )
    assert len(journal.uploads()) == len(journal.deletes()) == len(journal.renames()) == 2
    assert [upload.key for upload in journal.uploads(orphaned=True)] == ["theirs"]
    assert [delete.key for delete in journal.deletes(orphaned=True)] == ["theirs"]
    assert [rename.source for rename in journal.renames(orphaned=True)] == ["theirs"]
    # A second recovery, at the same time, finds nothing to do.
    assert journal.uploads(orphaned=True) == []
    assert journal.deletes(orphaned=True) == []
    assert journal.renames(orphaned=True) == []
    assert journal.pending() == 6


def test_W8_deletes(journal: Journal) -> None:
    journal.begin_delete("k", VERSION)
    journal.begin_delete("k", Version(6, "newer"))
    journal.begin_delete("l", None)
    assert sorted(journal.deletes(), key=lambda row: row.key) == [
        PendingDelete("k", Version(6, "newer")),
        PendingDelete("l", None),
    ]
    journal.finish_delete("k", [Wish("r", "k", "delete")])
    assert journal.deletes() == [PendingDelete("l", None)]
    assert journal.claim(1)[0].kind == "delete"


def test_W7_renames(journal: Journal) -> None:
    row = journal.begin_rename("a", "b", VERSION)
    other = journal.begin_rename("c", "d", VERSION)
    assert journal.renames() == [PendingRename(row, "a", "b", VERSION), PendingRename(other, "c", "d", VERSION)]
    journal.finish_rename(row, [Wish("r", "b", "replicate", 5)])
    assert [rename.id for rename in journal.renames()] == [other]
    assert journal.pending() == 2


def test_W7_moves_of_directories(journal: Journal) -> None:
    row = journal.begin_move("a/", "b/", replaced=False)
    other = journal.begin_move("c/", "d/", replaced=True)
    journal.advance_move(row, "removing")
    assert journal.moves() == [
        PendingMove(row, "a/", "b/", "removing", replaced=False),
        PendingMove(other, "c/", "d/", "copying", replaced=True),
    ]
    assert journal.pending() == 2
    journal.finish_move(row, [Wish("r", "b/x", "replicate", 5)])
    assert [move.id for move in journal.moves()] == [other]
    assert journal.claim(1)[0].key == "b/x"


def test_versions_without_a_tag_come_back(journal: Journal) -> None:
    journal.begin_rename("a", "b", Version(0, ""))
    assert journal.renames()[0].version == Version(0, "")
