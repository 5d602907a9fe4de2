from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mscfs.config.units import format_size, parse_address, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("1K", 1024), ("512M", 512 << 20), ("10g", 10 << 30), ("2T", 2 << 40)],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1M", "0.5G", "1.5", "10GB", "10 G", "1P", "1e3", "٣M"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=1 << 60))
def test_formatting_a_size_loses_nothing(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("60", 60.0), ("60s", 60.0), ("0.5", 0.5), ("250ms", 0.25), ("5m", 300.0), ("1.5h", 5400.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "-5s", "1d", "60 s", "inf", "nan", "1e3"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (":9464", "", 9464),
        ("127.0.0.1:1", "127.0.0.1", 1),
        ("node-7.example:65535", "node-7.example", 65535),
        ("[::1]:9464", "::1", 9464),
        ("[fe80::1%eth0]:9464", "fe80::1%eth0", 9464),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert parse_address(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        *("", "9464", "host", "host:", "host:http", "host:0", "host:65536", "host:-1", "::1:9464", "[::1]", "[]:9464"),
        *("http://host:9464", "host:9464/metrics", "user@host:9464", "a b:9464", ":9464\n", ":٣"),
    ],
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be HOST:PORT"):
        parse_address(text)
