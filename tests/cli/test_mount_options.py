from pathlib import Path

import pytest

from mscfs.cli.mount_options import apply_overrides, parse_options
from mscfs.config.load import parse_config
from mscfs.config.values import MscfsOptions
from mscfs.errors import UsageError


def test_nothing_said_leaves_everything_to_the_configuration():
    parsed = parse_options("")
    assert (parsed.read_only, parsed.allow_other, parsed.config_file, parsed.overrides) == (None, None, None, {})


def test_what_mount_makes_of_the_option_user():
    assert parse_options("rw,noexec,nosuid,nodev,user,noauto").no_exec


def test_the_last_of_two_options_counts():
    assert not parse_options("noexec,exec").no_exec
    assert parse_options("exec,noexec").no_exec
    assert parse_options("ro,rw").read_only is False
    assert parse_options("rw,ro").read_only is True
    assert parse_options("metadata_ttl=1,metadata_ttl=2").overrides == {"metadata_ttl": 2.0}


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("metadata_ttl=0", {"metadata_ttl": 0.0}),
        ("metadata_ttl=5m", {"metadata_ttl": 300.0}),
        ("memory_limit=1G", {"memory_limit": 1 << 30}),
        ("memory_limit=1073741824", {"memory_limit": 1 << 30}),
        ("hedging=false", {"hedging": False}),
        ("preserve_attributes", {"preserve_attributes": True}),
        ("read_consistency=replica", {"read_consistency": "replica"}),
        ("workers=2", {"workers": 2}),
        ("file_mode=0640", {"file_mode": 0o640}),
        ("metrics_address=:9464", {"metrics_address": ":9464"}),
        ("metrics_address=[::1]:9464", {"metrics_address": "[::1]:9464"}),
        ("metrics_address=", {"metrics_address": ""}),
        ("uid=1000,gid=100", {"uid": 1000, "gid": 100}),
        ("uid=root", {"uid": 0}),
        ("gid=root", {"gid": 0}),
        ("umask=022", {"file_mode": 0o644, "directory_mode": 0o755}),
        ("umask=0", {"file_mode": 0o666, "directory_mode": 0o777}),
    ],
)
def test_options_of_the_profile(text, overrides):
    assert parse_options(text).overrides == overrides
    assert parse_options(text).items == tuple(text.split(","))


def test_every_key_of_the_mscfs_block_is_an_option():
    for name in MscfsOptions.__dataclass_fields__:
        with pytest.raises(UsageError, match=f"mount option {name}: must be"):
            parse_options(f"{name}=definitely:wrong")


@pytest.mark.parametrize(
    "text",
    [
        "nofail,_netdev",
        "noatime,nodiratime",
        "relatime",
        "noauto,x-systemd.automount",
        "dev,suid",
        "user=joe,nosuid,nodev",
        "defaults",
        "comment=a",
    ],
)
def test_what_mount_passes_along_for_others_is_ignored(text):
    assert parse_options(text) == parse_options("")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metadatattl=5", "unknown mount option 'metadatattl'; did you mean 'metadata_ttl'\\?"),
        ("nosymfollow", "unknown mount option 'nosymfollow'"),
        ("umask=9", "mount option umask: must be three octal digits"),
        ("uid=no-such-user", "mount option uid: must be a number or a name"),
        ("config=", "config needs a file"),
        ("config", "config needs a file"),
        ("metadata_ttl=-1", "mount option metadata_ttl: must be a duration"),
        ("metadata_ttl={", "mount option metadata_ttl: must be a duration"),
        ("chunk_size=1", "mount option chunk_size: must be from 64K"),
        ("metadata_ttl", "mount option metadata_ttl: must be a duration"),
        ("metrics_address", "mount option metrics_address: must be HOST:PORT"),
        ("metrics_address=9464", "mount option metrics_address: must be HOST:PORT"),
    ],
)
def test_a_mistake_is_one_line(text, message):
    with pytest.raises(UsageError, match=message):
        parse_options(text)


def test_sloppy_passes_over_what_is_unknown_but_not_over_what_is_wrong():
    assert parse_options("frobnicate=3,ro", sloppy=True).read_only is True
    with pytest.raises(UsageError, match="metadata_ttl"):
        parse_options("metadata_ttl=soon", sloppy=True)


def test_config_file():
    assert parse_options("ro,config=/etc/mscfs/a.yaml").config_file == Path("/etc/mscfs/a.yaml")


def test_overrides_change_one_profile_alone(tmp_path):
    provider = {"type": "file", "options": {"base_path": str(tmp_path)}}
    config = parse_config({"profiles": {"a": {"storage_provider": provider}, "b": {"storage_provider": provider}}})
    changed = apply_overrides(config, config.profiles["a"], {"metadata_ttl": 0.0})
    assert (changed.profiles["a"].mscfs.metadata_ttl, changed.profiles["b"].mscfs.metadata_ttl) == (0.0, 60.0)
    assert config.profiles["a"].mscfs.metadata_ttl == 60.0
