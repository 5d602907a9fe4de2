import pytest

from mscfs.cli.mount_helper import is_call_of_mount, parse_call, profile_of
from mscfs.errors import UsageError


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "/mnt", "-o", "ro,nofail"],
        ["data", "/mnt", "-f", "-v", "-o", "ro,nofail"],
        ["-f", "-v", "data", "/mnt", "-o", "ro,nofail"],
        ["-o", "ro,nofail", "data", "/mnt"],
        ["data", "/mnt", "-oro,nofail"],
        ["data", "/mnt", "-vnfo", "ro,nofail"],
        ["data", "/mnt", "-N", "/proc/1/ns/mnt", "-t", "mscfs.sub", "-o", "ro,nofail"],
    ],
)
def test_the_order_of_arguments_does_not_matter(arguments):
    call = parse_call(arguments)
    assert (call.source, call.directory, call.options) == ("data", "/mnt", ["ro,nofail"])


@pytest.mark.parametrize(
    ("switches", "fake", "sloppy", "verbose"),
    [([], False, False, False), (["-sfnv"], True, True, True), (["-f", "-v"], True, False, True), (["-n"], 0, 0, 0)],
)
def test_switches(switches, fake, sloppy, verbose):
    call = parse_call(["data", "/mnt", *switches, "-o", "rw"])
    assert (call.fake, call.sloppy, call.verbose) == (fake, sloppy, verbose)


@pytest.mark.parametrize(
    "arguments", [[], ["data"], ["data", "/mnt", "/more"], ["data", "/mnt", "-x"], ["a", "b", "-o"]]
)
def test_a_wrong_call_is_a_usage_error(arguments):
    with pytest.raises(UsageError):
        parse_call(arguments)


@pytest.mark.parametrize("source", ["data", "msc://data", "msc://data/"])
def test_a_source_names_a_profile(source):
    assert profile_of(source) == "data"


def test_a_part_of_a_profile_cannot_be_mounted():
    with pytest.raises(UsageError, match="msc://data/"):
        profile_of("msc://data/train/2024")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["data", "/mnt/x", "-o", "rw,dev,suid"], True),
        (["mount", "data", "/mnt/x", "-o", "ro"], False),
        (["umount", "/mnt/x"], False),
        (["ls", "/mnt/x", "-l", "x"], False),
    ],
)
def test_being_called_by_mount_fuse(arguments, expected):
    assert is_call_of_mount(arguments) is expected
