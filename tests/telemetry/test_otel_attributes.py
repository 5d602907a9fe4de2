import os
import socket

import pytest

from mscfs.config.describe import describe
from mscfs.config.load import parse_config
from mscfs.errors import ConfigError
from mscfs.telemetry.otel_attributes import collect

CONFIG = parse_config(
    {
        "profiles": {
            "data": {
                "storage_provider": {"type": "s3", "options": {"base_path": "bucket/prefix"}},
                "credentials_provider": {
                    "type": "S3Credentials",
                    "options": {"access_key": "hidden-id", "secret_key": "hidden-key"},
                },
            }
        }
    }
)


class Mine:
    def __init__(self, answer):
        self._answer = answer

    def attributes(self):
        return self._answer


def described():
    return describe(CONFIG, CONFIG.profiles["data"])


def collected(kind, **attributes):
    return collect([{"type": kind, "options": {"attributes": attributes}}], described)


def test_each_type(monkeypatch):
    monkeypatch.setenv("RUN", "7")
    assert collected("static", cluster="a", nodes=4, spot=True) == {"cluster": "a", "nodes": 4, "spot": True}
    assert collected("environment_variables", run="RUN", other="NOT_SET") == {"run": "7"}
    assert collected("host", node="name") == {"node": socket.gethostname()}
    assert collected("process", process="pid") == {"process": os.getpid()}
    assert collected("thread", thread="native_id") == {}
    assert collect([{"type": f"{__name__}.Mine", "options": {"answer": {"a": 1}}}], described) == {"a": 1}
    assert collect([{"type": f"{__name__}.Mine", "options": {"answer": None}}], described) == {}
    assert collect([{"type": "static"}], described) == {}


def test_values_that_no_attribute_can_have_become_text():
    assert collected("static", a=[1, 2], b=None) == {"a": "[1, 2]"}


def test_the_later_of_two_counts():
    pair = [{"type": "static", "options": {"attributes": {"a": number, f"only{number}": 0}}} for number in (1, 2)]
    assert collect(pair, described) == {"a": 2, "only1": 0, "only2": 0}


def test_msc_config_finds_what_an_expression_names():
    found = collected(
        "msc_config",
        bucket={"expression": "profiles.data.storage_provider.options.base_path"},
        digest={"expression": "hash('sha256', profiles.data.storage_provider.type)"},
        absent={"expression": "profiles.other"},
    )
    assert found == {
        "bucket": "bucket/prefix",
        "digest": "ea2fde4aab21a96cd88e99f4b3bf93f9ffb1d5fbce5b41a5a3da0ddcf9d2f4a3",
    } | {"digest": found["digest"]}
    assert len(found["digest"]) == 64


def test_L5_msc_config_finds_no_secret():
    secret = "profiles.data.credentials_provider.options"
    found = collected("msc_config", key={"expression": f"{secret}.secret_key"}, all={"expression": "to_string(@)"})
    assert found["key"] == "***"
    assert "hidden" not in found["all"]


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("statik", {}, "no type 'statik' is known"),
        ("host", {"attributes": {"a": "address"}}, "must be one of name"),
        ("process", {"attributes": {"a": ["pid"]}}, "must be one of pid|unhashable"),
        ("static", {"attributes": ["a"]}, "options.attributes must be a mapping"),
        ("msc_config", {"attributes": {"a": "profiles"}}, "needs an expression"),
        ("msc_config", {"attributes": {"a": {"expression": "[["}}}, ""),
        ("msc_config", {"attributes": {"a": {"expression": "hash('none', 'a')"}}}, "none"),
        ("no_such_module.Class", {}, "no_such_module"),
        (f"{__name__}.NoClass", {}, "NoClass"),
        (f"{__name__}.Mine", {}, "answer"),
    ],
)
def test_what_is_wrong_is_one_error_that_names_the_place(kind, options, said):
    wrong = {"type": kind, "options": options}
    with pytest.raises(ConfigError, match=rf"^opentelemetry\.metrics\.attributes\[1\]: .*({said})"):
        collect([{"type": "static"}, wrong], described)
