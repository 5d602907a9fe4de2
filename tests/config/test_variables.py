from __future__ import annotations

import pytest

from mscfs.config.load import find_profile
from mscfs.config.variables import Expansion
from mscfs.errors import ConfigError
from tests.config.samples import parse, profile, refusal, replica, with_options


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$A", "one"),
        ("${A}", "one"),
        ("x/$A/${B}y", "x/one/twoy"),
        ("$A$B", "onetwo"),
        ("$$A", "$one"),
        ("100$", "100$"),
        ("$5", "$5"),
        ("$EMPTY", ""),
        ("$DOLLAR", "$A"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    expansion = Expansion({"A": "one", "B": "two", "EMPTY": "", "DOLLAR": "$A"})
    assert expansion.expand({"key": [text]}) == {"key": [expanded]}
    assert expansion.unset == {}


def test_only_string_values_are_expanded() -> None:
    data = {"$A": 1, "b": True, "c": None, "d": 2.5}
    assert Expansion({"A": "one"}).expand(data) == data


def test_an_unset_variable_is_named_and_its_text_stays() -> None:
    expansion = Expansion({"A": "one"})
    assert expansion.expand({"path": "$A/$B/${C}"}) == {"path": "$A/$B/${C}"}
    assert expansion.unset == {("path",): "the environment variables B, C must be set"}


@pytest.mark.parametrize("text", ["${A:-x}", "${}", "${A B}", "${9}"])
def test_no_other_syntax_is_known(text: str) -> None:
    expansion = Expansion({"A": "one"})
    expansion.expand({"path": text})
    assert "only $NAME and ${NAME} are known" in expansion.unset["path",]


def test_L5_a_name_inside_a_secret_is_not_told() -> None:
    expansion = Expansion({})
    expansion.expand({"secret_key": "pa$word", "token": {"value": "x${hunter}y"}, "access_key": "$AWS_KEY"})
    assert "word" not in expansion.unset["secret_key",]
    assert "hunter" not in expansion.unset["token", "value"]
    assert "AWS_KEY" in expansion.unset["access_key",]


def test_an_unset_variable_matters_only_where_the_profile_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    profiles = {"used": profile(), "other": with_options("s3", base_path="$NOT_SET")}
    config = parse(profiles)
    assert find_profile(config, "used").name == "used"
    with pytest.raises(ConfigError, match=r"profiles\.other.*base_path: the environment variable NOT_SET must be set"):
        find_profile(config, "other")
    monkeypatch.setenv("NOT_SET", "bucket")
    assert find_profile(parse(profiles), "other").storage_provider.options["base_path"] == "bucket"


def test_an_unset_variable_of_a_replica_matters_to_its_primary() -> None:
    config = parse({"a": profile(replicas=[replica("b")]), "b": with_options("gcs", project_id="$NOT_SET")})
    with pytest.raises(
        ConfigError, match=r"profile 'a' cannot be used because of its replica 'b': .*NOT_SET must be set"
    ):
        find_profile(config, "a")


def test_text_that_could_not_be_expanded_is_judged_no_further() -> None:
    config = parse({"a": with_options("s3", max_concurrency="$NOT_SET", endpoint_url="$NOR_THIS")})
    assert len(config.unusable["a"]) == 2
    assert all("must be set" in line for line in config.unusable["a"])


def test_an_unknown_key_is_told_whatever_its_value() -> None:
    config = parse({"a": with_options("s3", regoin_name="$NOT_SET")})
    assert "did you mean 'region_name'?" in config.warnings[0]


@pytest.mark.parametrize(
    "section", [{"cache": {"location": "$NOT_SET"}}, {"posix": {"mountpoint": "$NOT_SET"}}, {"include": ["$NOT_SET"]}]
)
def test_an_unset_variable_outside_of_profiles_is_an_error(section: dict[str, object]) -> None:
    message = refusal(None, **section)
    assert "NOT_SET must be set" in message
    assert "\n" not in message


def test_an_unset_variable_of_opentelemetry_is_a_warning() -> None:
    config = parse(opentelemetry={"metrics": {"exporter": {"type": "otlp", "options": {"endpoint": "$NOT_SET"}}}})
    assert "NOT_SET must be set" in config.warnings[0]


def test_a_comment_may_hold_anything() -> None:
    assert find_profile(parse({"a": profile(comment="costs $MONEY")}), "a")


def test_numbers_may_come_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PART_SIZE", "8388608")
    config = parse({"a": with_options("s3", multipart_chunksize="${PART_SIZE}")})
    assert find_profile(config, "a").storage_provider.options["multipart_chunksize"] == 8388608


def test_keys_that_are_no_strings_are_errors() -> None:
    assert "profiles.12: is no string: put this key in quotes" in refusal({"a": profile(), 12: profile()})  # type: ignore[dict-item]
