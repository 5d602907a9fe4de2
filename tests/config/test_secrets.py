from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from mscfs.cli.config import app
from mscfs.config.describe import describe
from mscfs.config.load import check_config, find_profile, parse_config
from mscfs.config.secrets import MASK, is_secret_name, mask, mask_all
from mscfs.errors import ConfigError
from tests.config.samples import parse, profile, refusal, with_options, write

SECRET_NAMES = [
    "access_key", "secret_key", "session_token", "connection", "account_key", "password", "token", "sas_token",
    "private_key", "info", "client_secret", "AWS_SECRET_ACCESS_KEY", "apiKey", "Authorization", "token_supplier",
    "client_credential", "headers", "passphrase",
]  # fmt: skip
HARMLESS_NAMES = [
    "base_path", "region_name", "endpoint_url", "max_pool_connections", "signature_version", "skip_signature",
    "credential_file_path", "profile_name", "audience", "file", "multipart_chunksize", "project_id", "verify",
]  # fmt: skip

# Long enough never to turn up by chance; with everything that URLs, YAML and variables give a meaning to.
marker = "S3CR3T"
# A value that is nothing but "$NAME" is a reference, not a secret.
secrets = (
    st.text(st.sampled_from("aB9/+=:@?#&%$ '\"{}[]-_\\é\n"), max_size=12)
    .flatmap(lambda noise: st.sampled_from([f"{marker}{noise}{marker}", f"{noise}{marker}", f"{marker}{noise}"]))
    .filter(lambda secret: not secret.startswith("$"))
)


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_names_that_suggest_a_secret(name: str) -> None:
    assert is_secret_name(name)
    assert mask({"outer": [{name: {"inner": "x"}}]}) == {"outer": [{name: MASK}]}


@pytest.mark.parametrize("name", HARMLESS_NAMES)
def test_names_that_do_not(name: str) -> None:
    assert mask({name: "x"}) == {name: "x"}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://example.org/path", "https://example.org/path"),
        ("https://user:pass@example.org/path", "https://***@example.org/path"),
        ("https://token@example.org", "https://***@example.org"),
        ("https://u:p/a@s@example.org/x", "https://***@example.org/x"),
        ("https://u:p?w@example.org/x", "https://***"),
        ("via http://u:p@example.org", "via http://***@example.org"),
        ("https://example.org/c?sv=1&sig=abc", "https://example.org/c?***"),
        ("https://example.org/#abc", "https://example.org/#***"),
        ("DefaultEndpointsProtocol=https;AccountKey=abc;", MASK),
        ("SharedAccessSignature=abc", MASK),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc", MASK),
        ("bucket/prefix", "bucket/prefix"),
        ("me@example.org", "me@example.org"),
    ],
)
def test_strings_that_hold_a_secret(text: str, masked: str) -> None:
    assert mask({"value": [text]}) == {"value": [masked]}


def test_a_profile_may_have_any_name() -> None:
    message = refusal({"secret-token": profile(caching_enabled=1)})
    assert message == "test: profiles.secret-token.caching_enabled: must be true or false, not 1"
    config = parse({"secret-token": with_options("s3", base_path="x-$NOT_SET")})
    assert "NOT_SET must be set" in config.unusable["secret-token"][0]


def test_masking_keeps_what_is_no_secret_and_changes_nothing_in_place() -> None:
    value = {"number": 5, "flag": False, "nothing": None, "list": (1, "a"), "token": None, "secret": 5}
    before = dict(value)
    assert mask(value) == {
        "number": 5, "flag": False, "nothing": None, "list": [1, "a"], "token": None, "secret": MASK
    }  # fmt: skip
    assert value == before


def test_of_an_unknown_class_everything_is_masked() -> None:
    assert mask_all({"role": "x", "base_path": "b", "n": 1}, keep=frozenset({"base_path"})) == {
        "role": MASK, "base_path": "b", "n": MASK
    }  # fmt: skip


@given(secrets, st.sampled_from(SECRET_NAMES), st.sampled_from(["a", "rust_client", "options"]))
def test_L5_no_secret_survives_masking(secret: str, name: str, outer: str) -> None:
    for value in (secret, [secret], {"x": secret}, f"https://u:{secret}@host"):
        assert marker not in str(mask({outer: [{name: value}]}))


@given(secrets)
def test_L5_no_password_or_signature_of_a_url_survives_masking(secret: str) -> None:
    for url in (f"https://u:{secret}@host/x", f"https://{secret}@host", f"http://host/x?sig={secret}"):
        assert marker not in mask(url)


def _secretive(secret: str) -> dict[str, Any]:
    """A configuration with a secret at every place meant for one."""
    s3 = profile(
        credentials_provider={
            "type": "S3Credentials",
            "options": {"access_key": secret, "secret_key": secret, "session_token": secret},
        },
        replicas=[{"replica_profile": name, "read_priority": 1} for name in ("azure", "gcs", "pool", "custom")],
    )
    s3["storage_provider"]["options"] |= {
        "endpoint_url": f"https://user:{secret}@host/",
        "s3": {"secret": secret},
        "retries": {"auth": {"deep": [secret]}},
    }
    custom = profile(
        "x.Store", credentials_provider={"type": "x.Vault", "options": {"role": secret, "m": {"n": secret}}}
    )
    # Here a "$word" is taken for a variable, and the name of one that is not set is told.
    custom["storage_provider"]["options"]["anything"] = secret.replace("$", "")
    google = "credentials_provider"
    return {
        "profiles": {
            "s3": s3,
            "azure": profile(
                "azure", credentials_provider={"type": "AzureCredentials", "options": {"connection": secret}}
            ),
            "gcs": profile(
                "gcs",
                **{google: {"type": "GoogleServiceAccountCredentialsProvider", "options": {"info": {"k": secret}}}},
            ),
            "pool": profile(
                "gcs",
                **{
                    google: {
                        "type": "GoogleIdentityPoolCredentialsProvider",
                        "options": {"audience": "x", "token_supplier": secret},
                    }
                },
            ),
            "custom": custom,
        },
        "opentelemetry": {"metrics": {"exporter": {"type": "otlp", "options": {"headers": {"a": secret}}}}},
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(secrets)
def test_L5_no_secret_is_shown_logged_or_printed(tmp_path: Path, secret: str) -> None:
    path = write(tmp_path / "c.yaml", yaml.safe_dump(_secretive(secret), allow_unicode=True))
    report = check_config(path)
    outputs = [repr(report), *map(str, report.problems)]
    if report.config is not None and "s3" in report.config.profiles:
        found = find_profile(report.config, "s3")
        assert found.credentials_provider is not None
        assert "$" in secret or found.credentials_provider.options["secret_key"] == secret
        outputs += [repr(found), str(describe(report.config, found))]
    for arguments in (["validate", str(path)], ["validate", "--strict", "--json", str(path)]):
        outputs.append(CliRunner().invoke(app, arguments).output)
    for arguments in (["show", "s3", "--config", str(path)], ["show", "s3", "--json", "--config", str(path)]):
        outputs.append(_output(arguments))
    assert [output for output in outputs if marker in output] == []


def _output(arguments: list[str]) -> str:
    result = CliRunner().invoke(app, arguments)
    return f"{result.output} {result.exception}"


@given(secrets, st.sampled_from(["secret_key", "access_key", "session_token"]), st.data())
def test_L5_no_secret_is_told_by_an_error_beside_it(secret: str, name: str, data: st.DataObject) -> None:
    """Typos in names, wrong types, missing braces: the line that is told never holds the value."""
    options: dict[str, Any] = {"access_key": "a", "secret_key": "b"}
    wrong = data.draw(st.sampled_from(["typo", "list", "mapping", "string", "expanded"]))
    options |= {
        "typo": {f"{name}x": secret},
        "list": {name: [secret]},
        "mapping": {name: {secret: secret}},
        "string": {},
        "expanded": {name: f"x${{{secret}}}"},
    }[wrong]
    given_options: Any = secret if wrong == "string" else options
    made = profile(credentials_provider={"type": "S3Credentials", "options": given_options})
    try:
        config = parse_config({"profiles": {"a": made}})
        told = "\n".join([*config.warnings, *config.unusable.get("a", ()), repr(config)])
        assert told
    except ConfigError as error:
        told = str(error)
    assert marker not in told


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(secrets, st.sampled_from(["{k: v}", "'", '"', "{", "[", "*", "&", "!", "%", "@", "`", ": ", "\t", "- "]))
def test_L5_no_secret_is_told_by_a_syntax_error(tmp_path: Path, secret: str, noise: str) -> None:
    one_line = secret.replace("\n", " ")
    for text in (f"k: {noise}{one_line}\nx: {{", f"k: {one_line}{noise}\n", f'{{"k": "{one_line}{noise}"'):
        for name in ("c.yaml", "c.json"):
            report = check_config(write(tmp_path / name, text))
            # Outside of quotes a secret may become a key; only what a parser itself says is meant here.
            if report.problems and "is not valid" in str(report.problems[0]):
                assert marker not in str(report.problems)


def test_what_is_shown_is_a_configuration_again() -> None:
    data = {
        "profiles": {
            "a": profile(
                replicas=[{"replica_profile": "b", "read_priority": 2}], mscfs={"memory_limit": "1G", "uid": 5}
            ),
            "b": profile("file", mscfs={"file_mode": "0600"}, retry={"attempts": 1}),
        },
        "cache": {"size": "3G", "location": "/x"},
        "posix": {"mountname": "m"},
    }
    config = parse_config(data)
    shown = describe(config, find_profile(config, "a"))
    again = parse_config(json.loads(json.dumps(shown)))
    assert again == config
    assert yaml.safe_load(yaml.safe_dump(shown)) == shown
