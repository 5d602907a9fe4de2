"""How much memory a mount takes for itself."""

from __future__ import annotations

import pytest

from mscfs.cache.budget import memory_budget

MIB = 1 << 20


@pytest.fixture
def cgroups(tmp_path):
    (tmp_path / "fs").mkdir()
    return tmp_path / "fs"


@pytest.fixture
def ours(tmp_path):
    return tmp_path / "cgroup"


def limit(cgroups, path, value):
    directory = cgroups / path
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "memory.max").write_text(f"{value}\n")


def budget(cgroups, ours, wanted=512 * MIB, smallest=16 * MIB):
    return memory_budget(wanted, smallest=smallest, cgroups=cgroups, ours=ours)


def test_L4_the_limit_holds_where_no_cgroup_says_less(cgroups, ours):
    assert budget(cgroups, ours) == 512 * MIB  # no cgroups at all
    ours.write_text("0::/user.slice/session\n")
    assert budget(cgroups, ours) == 512 * MIB  # no such directory
    limit(cgroups, "user.slice/session", "max")
    assert budget(cgroups, ours) == 512 * MIB
    limit(cgroups, "user.slice/session", 8192 * MIB)
    assert budget(cgroups, ours) == 512 * MIB


def test_L4_a_small_cgroup_gets_half_of_its_memory(cgroups, ours):
    ours.write_text("0::/pod/container\n")
    limit(cgroups, "pod/container", 256 * MIB)
    assert budget(cgroups, ours) == 128 * MIB


@pytest.mark.parametrize("path", ["", "a", "a/b", "a/b/c"])
def test_L4_a_limit_of_any_cgroup_around_ours_counts(cgroups, ours, path):
    ours.write_text("0::/a/b/c\n")
    limit(cgroups, "a/b/c", "max")
    limit(cgroups, path, 300 * MIB)
    assert budget(cgroups, ours) == 150 * MIB


def test_L4_the_smallest_of_several_limits_counts(cgroups, ours):
    ours.write_text("0::/a/b\n")
    limit(cgroups, "a", 200 * MIB)
    limit(cgroups, "a/b", 400 * MIB)
    assert budget(cgroups, ours) == 100 * MIB


def test_L4_inside_a_container_the_root_is_our_cgroup(cgroups, ours):
    ours.write_text("0::/\n")
    limit(cgroups, "", 64 * MIB)
    assert budget(cgroups, ours) == 32 * MIB


def test_a_limit_of_somebody_else_does_not_count(cgroups, ours):
    ours.write_text("0::/a/b\n")
    limit(cgroups, "a/other", 1 * MIB)
    limit(cgroups, "a/b/below", 1 * MIB)
    (cgroups.parent / "memory.max").write_text(str(MIB))  # above the root
    assert budget(cgroups, ours) == 512 * MIB


def test_L4_there_is_always_enough_to_work_with(cgroups, ours):
    ours.write_text("0::/a\n")
    limit(cgroups, "a", 4 * MIB)
    assert budget(cgroups, ours) == 16 * MIB
    assert budget(cgroups, ours, wanted=MIB) == 16 * MIB


def test_cgroups_of_version_1_are_passed_over(cgroups, ours):
    ours.write_text("12:memory:/docker/abc\n1:name=systemd:/docker/abc\n")
    assert budget(cgroups, ours) == 512 * MIB
    ours.write_text("12:memory:/docker/abc\n0::/a\n")
    limit(cgroups, "a", 64 * MIB)
    assert budget(cgroups, ours) == 32 * MIB


def test_this_process_has_a_budget():
    assert 0 < memory_budget(512 * MIB, smallest=1) <= 512 * MIB
