from __future__ import annotations

from typing import Any

import pytest

from mscfs.config.load import find_profile
from mscfs.config.values import ProviderConfig
from mscfs.errors import ConfigError
from tests.config.samples import parse, profile, refusal, with_options


def unusable(made: dict[str, Any]) -> str:
    """Why a profile cannot be used, in a file that is accepted."""
    config = parse({"a": made, "other": profile()})
    assert find_profile(config, "other")
    with pytest.raises(ConfigError) as caught:
        find_profile(config, "a")
    return str(caught.value)


def with_credentials(kind: str, storage: str, **options: Any) -> dict[str, Any]:
    return profile(storage, credentials_provider={"type": kind, "options": options})


@pytest.mark.parametrize("kind", ["s3", "s8k", "gcs_s3"])
def test_all_options_of_s3(kind: str) -> None:
    options = {
        "base_path": "bucket/prefix",
        "endpoint_url": "http://127.0.0.1:9000",
        "region_name": "us-east-1",
        "profile_name": "team",
        "verify": "/etc/ca.pem",
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_supported",
        "max_pool_connections": 128,
        "connect_timeout": 5,
        "read_timeout": 0.5,
        "retries": {"mode": "standard"},
        "s3": {"addressing_style": "path"},
        "signature_version": "s3v4",
        "multipart_threshold": 67108864,
        "multipart_chunksize": 33554432,
        "io_chunksize": 33554432,
        "max_concurrency": 8,
        "rust_client": {"multipart_chunksize": 8388608, "max_concurrency": 16, "allow_http": True},
    }
    config = parse({"a": with_options(kind, **options)})
    assert config.warnings == ()
    assert find_profile(config, "a").storage_provider == ProviderConfig(kind, options)


def test_options_of_one_flavour_of_s3() -> None:
    assert parse({"a": with_options("s3", checksum_algorithm="crc32c")}).warnings == ()
    assert parse({"a": with_options("s8k", infer_content_type=True)}).warnings == ()
    assert "infer_content_type: unknown key" in parse({"a": with_options("s3", infer_content_type=True)}).warnings[0]
    assert "must be removed: gcs_s3" in unusable(with_options("gcs_s3", checksum_algorithm="CRC32"))


def test_all_options_of_gcs_and_azure() -> None:
    common = {"multipart_threshold": 1, "multipart_chunksize": 1, "io_chunksize": 1, "max_concurrency": 1}
    gcs = with_options("gcs", project_id="p", endpoint_url="", skip_signature=True, max_pool_connections=4, **common)
    azure = with_options("azure", validate_content=True, **common)
    config = parse({"gcs": gcs, "azure": azure})
    assert config.warnings == ()
    assert find_profile(config, "gcs").storage_provider.options["project_id"] == "p"
    assert find_profile(config, "azure").storage_provider.options["validate_content"] is True


@pytest.mark.parametrize("kind", ["file", "s3", "s8k", "gcs_s3", "gcs", "azure"])
def test_every_store_needs_a_base_path(kind: str) -> None:
    made = profile(kind)
    del made["storage_provider"]["options"]["base_path"]
    assert "profiles.a.storage_provider.options.base_path: is required: " in refusal({"a": made})
    del made["storage_provider"]["options"]
    assert "options.base_path: is required: " in refusal({"a": made})


@pytest.mark.parametrize("path", ["", "/", "s3://bucket", "//"])
def test_an_object_store_needs_a_bucket(path: str) -> None:
    assert "base_path: must be a bucket or container" in unusable(with_options("gcs", base_path=path))


def test_the_path_of_a_file_store_is_absolute() -> None:
    assert "base_path: must be an absolute path" in unusable(with_options("file", base_path="data"))
    config = parse({"a": with_options("file", base_path="")})
    assert find_profile(config, "a").storage_provider.options == {"base_path": "/"}


@pytest.mark.parametrize(
    ("kind", "option", "value", "words"),
    [
        ("s3", "max_concurrency", 0, "must be a positive whole number, not 0"),
        ("s3", "max_concurrency", "many", "must be a positive whole number, not a string"),
        ("s3", "max_concurrency", "٣", "must be a positive whole number, not a string"),
        ("s3", "max_concurrency", "-1", "must be a positive whole number, not a string"),
        ("s3", "multipart_chunksize", True, "must be a positive whole number, not true"),
        ("gcs", "read_timeout", 0, "must be a positive number of seconds, not 0"),
        ("s3", "checksum_algorithm", "MD5", "must be CRC32, CRC32C, SHA1, SHA256 or CRC64NVME"),
        ("s3", "request_checksum_calculation", "never", "must be when_supported or when_required"),
        ("s3", "verify", 1, "must be true, false or the path of a CA bundle"),
        ("s3", "retries", 3, "must be a mapping, not 3"),
        ("s3", "region_name", 5, "must be a string, not 5"),
        ("s3", "rust_client", "yes", "must be true, false or a mapping, not a string"),
        ("s3", "endpoint_url", "minio:9000", "must be a URL that starts with http:// or https://"),
        ("azure", "endpoint_url", "", "must be the account's URL"),
        ("azure", "validate_content", "yes", "must be true or false, not a string"),
    ],
)
def test_a_wrong_option_concerns_its_profile_alone(kind: str, option: str, value: Any, words: str) -> None:
    assert f"profiles.a.storage_provider.options.{option}: {words}" in unusable(with_options(kind, **{option: value}))


def test_azure_needs_its_endpoint() -> None:
    made = profile("azure")
    del made["storage_provider"]["options"]["endpoint_url"]
    assert "options.endpoint_url: is required: the account's URL" in refusal({"a": made})


@pytest.mark.parametrize("value", [False, True, {}])
def test_the_native_client_is_a_switch_or_a_block(value: Any) -> None:
    config = parse({"a": with_options("s3", rust_client=value)})
    assert find_profile(config, "a").storage_provider.options["rust_client"] == value


def test_an_unknown_key_of_the_native_client_is_told() -> None:
    config = parse({"a": with_options("s3", rust_client={"max_concurency": 4})})
    assert "options.rust_client.max_concurency: unknown key" in config.warnings[0]
    assert config.warnings[0].endswith("did you mean 'max_concurrency'?")


def test_null_options_were_not_given() -> None:
    config = parse({"a": with_options("s3", profile_name=None, endpoint_url=None)})
    assert find_profile(config, "a").storage_provider.options == {"base_path": "bucket"}


@pytest.mark.parametrize(
    ("kind", "storage", "options"),
    [
        ("S3Credentials", "s3", {"access_key": "a", "secret_key": "b"}),
        ("S3Credentials", "s8k", {"access_key": "a", "secret_key": "b", "session_token": "c"}),
        ("S3Credentials", "gcs_s3", {"access_key": "a", "secret_key": "b", "session_token": ""}),
        ("FileBasedCredentials", "s3", {"credential_file_path": "/x.json"}),
        ("AzureCredentials", "azure", {"connection": "AccountName=a;AccountKey=b"}),
        ("DefaultAzureCredentials", "azure", {}),
        ("DefaultAzureCredentials", "azure", {"managed_identity_client_id": "x"}),
        ("GoogleIdentityPoolCredentialsProvider", "gcs", {"audience": "//iam", "token_supplier": "t"}),
        ("GoogleServiceAccountCredentialsProvider", "gcs", {"file": "/x.json"}),
        ("GoogleServiceAccountCredentialsProvider", "gcs", {"info": {"type": "service_account"}}),
        ("my_company.Vault", "s3", {"role": 1}),
        # Harmless: a directory needs no credentials.
        ("S3Credentials", "file", {"access_key": "a", "secret_key": "b"}),
        ("S3Credentials", "my_company.Store", {"access_key": "a", "secret_key": "b"}),
    ],
)
def test_credentials(kind: str, storage: str, options: dict[str, Any]) -> None:
    config = parse({"a": with_credentials(kind, storage, **options)})
    assert config.warnings == ()
    assert find_profile(config, "a").credentials_provider == ProviderConfig(kind, options)


def test_options_of_credentials_may_be_left_out() -> None:
    config = parse({"a": profile("azure", credentials_provider={"type": "DefaultAzureCredentials"})})
    assert find_profile(config, "a").credentials_provider == ProviderConfig("DefaultAzureCredentials")


@pytest.mark.parametrize(
    ("kind", "storage", "missing"),
    [
        ("S3Credentials", "s3", "options.access_key: is required"),
        ("S3Credentials", "s3", "options.secret_key: is required"),
        ("AzureCredentials", "azure", "options.connection: is required"),
        ("FileBasedCredentials", "s3", "options.credential_file_path: is required"),
        ("GoogleIdentityPoolCredentialsProvider", "gcs", "options.token_supplier: is required"),
        ("GoogleServiceAccountCredentialsProvider", "gcs", "options: needs either file or info"),
    ],
)
def test_missing_options_of_credentials(kind: str, storage: str, missing: str) -> None:
    assert missing in refusal({"a": with_credentials(kind, storage)})


def test_service_account_by_file_and_info_at_once() -> None:
    made = with_credentials("GoogleServiceAccountCredentialsProvider", "gcs", file="/x", info={})
    assert "needs either file or info" in refusal({"a": made})


def test_credentials_of_another_store() -> None:
    made = with_credentials("AzureCredentials", "s3", connection="x")
    assert "AzureCredentials is for azure, not for a storage provider of type s3" in unusable(made)


def test_unknown_credentials_are_compared_with_the_known() -> None:
    message = refusal({"a": with_credentials("S3Credential", "s3")})
    assert "credentials_provider.type: must be one of S3Credentials, " in message
    assert message.endswith("did you mean 'S3Credentials'?")


def test_a_number_for_a_secret_is_not_repeated() -> None:
    message = unusable(with_credentials("S3Credentials", "s3", access_key="a", secret_key=86753099))
    assert "secret_key: must be a string that is not empty, not a number" in message
    assert "86753099" not in message
