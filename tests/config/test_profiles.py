from __future__ import annotations

from typing import Any

import pytest

from mscfs.config.load import find_profile
from mscfs.config.values import Config, MscfsOptions, ProfileConfig, ProviderConfig, ReplicaConfig, RetryConfig
from mscfs.errors import ConfigError
from tests.config.samples import parse, profile, refusal, replica, with_options


def error_of(config: Config, name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        find_profile(config, name)
    return str(caught.value)


def test_the_example_of_the_specification() -> None:
    config = parse(
        {
            "primary-s3": {
                "storage_provider": {"type": "s3", "options": {"base_path": "primary-bucket"}},
                "replicas": [replica("backup-gcs", 1), replica("cold-azure", 2)],
            },
            "backup-gcs": profile("gcs"),
            "cold-azure": profile("azure"),
        }
    )
    assert find_profile(config, "primary-s3") == ProfileConfig(
        "primary-s3",
        ProviderConfig("s3", {"base_path": "primary-bucket"}),
        replicas=(ReplicaConfig("backup-gcs", 1), ReplicaConfig("cold-azure", 2)),
    )
    assert config.warnings == ()


def test_defaults() -> None:
    made = find_profile(parse(), "a")
    assert made.mscfs == MscfsOptions()
    assert made.retry == RetryConfig()
    assert made.credentials_provider is None
    assert not made.caching_enabled


def test_R3_replicas_are_sorted_by_priority_and_equal_ones_keep_their_order() -> None:
    profiles = {name: profile() for name in "bcde"}
    listed = [replica("d", 2), replica("e", 1, read_only=True), replica("b", 2), replica("c", 1)]
    made = find_profile(parse({"a": profile(replicas=listed), **profiles}), "a")
    assert [entry.profile for entry in made.replicas] == ["e", "c", "d", "b"]
    assert made.replicas[0].read_only
    assert not made.replicas[1].read_only


@pytest.mark.parametrize("priority", [0, -1, True, False, 1.0, 1.5, "1", None, [1]])
def test_read_priority_must_be_a_positive_integer(priority: Any) -> None:
    message = refusal({"a": profile(replicas=[{**replica("b"), "read_priority": priority}]), "b": profile()})
    assert "profiles.a.replicas[0].read_priority: must be a positive whole number; 1 is read first, not " in message


def test_read_priority_is_mandatory() -> None:
    message = refusal({"a": profile(replicas=[{"replica_profile": "b"}]), "b": profile()})
    assert "profiles.a.replicas[0].read_priority: is required: a positive whole number" in message


def test_a_replica_must_exist() -> None:
    message = refusal({"primary": profile(replicas=[replica("backpu")]), "backup": profile()})
    assert message == (
        "test: profiles.primary.replicas[0].replica_profile: no profile is named 'backpu'; did you mean 'backup'?"
    )


def test_a_profile_is_not_its_own_replica() -> None:
    assert "a profile cannot be its own replica" in refusal({"a": profile(replicas=[replica("a")])})


def test_a_replica_is_listed_once() -> None:
    message = refusal({"a": profile(replicas=[replica("b", 1), replica("b", 2)]), "b": profile()})
    assert message == "test: profiles.a.replicas[1].replica_profile: 'b' is listed twice"


def test_a_replica_has_no_replicas_itself() -> None:
    config = parse({"a": profile(replicas=[replica("b")]), "b": profile(replicas=[replica("c")]), "c": profile("gcs")})
    assert "'b' has replicas of its own, which is not followed" in error_of(config, "a")
    assert find_profile(config, "b").replicas[0].profile == "c"


def test_two_profiles_that_list_each_other_are_told_once_each() -> None:
    config = parse({"a": profile(replicas=[replica("b")]), "b": profile(replicas=[replica("a")])})
    for name in "ab":
        assert len(error_of(config, name).splitlines()) == 1


@pytest.mark.parametrize("kind", ["oci", "ais", "ais_s3", "huggingface", "s3_cuobject"])
def test_a_store_that_is_not_supported_says_so_by_name_when_it_is_used(kind: str) -> None:
    config = parse({"a": profile(), "b": profile(kind), "c": profile(replicas=[replica("b")])})
    assert find_profile(config, "a")
    assert f"'{kind}' is part of the shared format and not supported by mscfs" in error_of(config, "b")
    assert "because of its replica 'b'" in error_of(config, "c")
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"provider_bundle": {"type": "x.Y"}}, "provider_bundle"),
        ({"storage_provider_profiles": ["a"], "metadata_provider": {"type": "x.Y"}}, "storage_provider_profiles"),
        ({"storage_provider_profiles": ["a"], "metadata_provider": {"type": "x.Y"}}, "metadata_provider"),
        ({**profile(), "metadata_provider": {"type": "manifest"}}, "metadata_provider"),
        ({**profile(), "credentials_provider": {"type": "AISCredentials"}}, "credentials_provider.type"),
        ({**profile(), "credentials_provider": {"type": "HuggingFaceCredentials"}}, "credentials_provider.type"),
    ],
)
def test_a_key_that_is_not_supported_says_so_by_name_when_it_is_used(keys: dict[str, Any], named: str) -> None:
    config = parse({"a": profile(), "b": keys})
    assert f"profiles.b.{named}: " in error_of(config, "b")
    assert "not supported by mscfs" in error_of(config, "b")


def test_a_profile_names_a_storage_provider() -> None:
    assert "profiles.a.storage_provider: is required: a mapping with type and options" in refusal({"a": {}})
    assert "profiles.a: must be a mapping" in refusal({"a": None})
    both = profile(provider_bundle={"type": "x.Y"})
    assert "profiles.a.provider_bundle: excludes storage_provider: remove one" in refusal({"a": both})


@pytest.mark.parametrize("kind", ["S3", "s3s", "memories", "my class", ".x", "x.", "x..Y", "x.1"])
def test_an_unknown_storage_provider_is_an_error(kind: str) -> None:
    message = refusal({"a": profile(kind)})
    assert (
        "storage_provider.type: must be one of file, memory, s3, s8k, gcs_s3, gcs, azure, or a class as module.Class"
        in message
    )


def test_an_unknown_storage_provider_is_compared_with_the_known() -> None:
    assert refusal({"a": profile("azur")}).endswith("did you mean 'azure'?")


def test_a_class_gets_its_options_as_they_are() -> None:
    made = with_options("my_company.stores.Store", depth={"x": [1]}, nothing=None)
    provider = find_profile(parse({"a": made}), "a").storage_provider
    assert provider == ProviderConfig("my_company.stores.Store", {"base_path": "bucket", "depth": {"x": [1]}})


def test_a_class_needs_no_options() -> None:
    config = parse({"a": {"storage_provider": {"type": "x.Y"}}})
    assert find_profile(config, "a").storage_provider == ProviderConfig("x.Y")


@pytest.mark.parametrize("name", ["", "_a", "__filesystem"])
def test_reserved_names_are_errors(name: str) -> None:
    assert "must not be empty or begin with '_'" in refusal({name: profile()})


@pytest.mark.parametrize("name", ["a/b", "../x", "a\0b", "a\nb", "a\x1b[2J", "a\x9b2J", "a\x7f", "a\u202eb"])
def test_names_that_cannot_be_part_of_a_path_are_errors(name: str) -> None:
    message = refusal({name: profile()})
    assert "must not hold '/' or control characters" in message
    assert len(message.splitlines()) == 1


def test_a_name_too_long_for_a_directory_is_an_error() -> None:
    assert "more than 200 bytes" in refusal({"ü" * 101: profile()})
    assert find_profile(parse({"ü" * 100: profile()}), "ü" * 100).name == "ü" * 100


def test_the_file_system_profile_exists_and_cannot_be_changed() -> None:
    expected = ProviderConfig("file", {"base_path": "/"})
    assert find_profile(parse(), "__filesystem__").storage_provider == expected
    same = {"storage_provider": {"type": "file", "options": {"base_path": "/"}}}
    assert find_profile(parse({"__filesystem__": same}), "__filesystem__").storage_provider == expected
    assert "is reserved" in refusal({"__filesystem__": profile("file")})


@pytest.mark.parametrize(("name", "kind"), [("_s3-my-bucket", "s3"), ("_gs-my-bucket", "gcs")])
def test_buckets_are_implicit_profiles(name: str, kind: str) -> None:
    assert find_profile(parse(), name).storage_provider == ProviderConfig(kind, {"base_path": "my-bucket"})


@pytest.mark.parametrize("name", ["_s3-", "_s3-a/b", "_s3-../x", "_ais-x", "_x", "_file-x"])
def test_other_reserved_names_are_unknown(name: str) -> None:
    assert "no profile is named" in error_of(parse(), name)


def test_an_unknown_profile_is_compared_with_the_known() -> None:
    message = error_of(parse({"training": profile(), "backup": profile("oci")}), "trainig")
    assert message == "no profile is named 'trainig'; did you mean 'training'? (there are: backup, training)"
    assert error_of(parse({}), "x") == "no profile is named 'x' (there are none)"
    many = parse({f"p{number:02}": profile() for number in range(25)})
    assert error_of(many, "zzz").endswith("p19 and 5 more)")


def test_retry() -> None:
    made = find_profile(parse({"a": profile(retry={"attempts": 5, "delay": 0, "backoff_multiplier": 1.5})}), "a")
    assert made.retry == RetryConfig(5, 0.0, 1.5)


@pytest.mark.parametrize(
    ("retry", "words"),
    [
        ({"attempts": 0}, "attempts: must be a whole number, 1 or more, not 0"),
        ({"attempts": True}, "attempts: must be a whole number, 1 or more, not true"),
        ({"delay": -1}, "delay: must be a number of seconds, 0 or more, not -1"),
        ({"delay": float("nan")}, "delay: must be a number of seconds, 0 or more, not nan"),
        ({"backoff_multiplier": 0.5}, "backoff_multiplier: must be a number, 1 or more, not 0.5"),
        ([], "retry: must be a mapping, not a list"),
    ],
)
def test_retry_out_of_range(retry: Any, words: str) -> None:
    assert words in refusal({"a": profile(retry=retry)})


def test_autocommit_alone_means_nothing() -> None:
    config = parse({"a": profile(autocommit={"interval_minutes": 5, "at_exit": True})})
    assert find_profile(config, "a")
    assert config.warnings == ()


@pytest.mark.parametrize("value", ["true", 1, None])
def test_flags_are_true_or_false(value: Any) -> None:
    assert "caching_enabled: must be true or false, not " in refusal({"a": profile(caching_enabled=value)})
