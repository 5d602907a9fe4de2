from __future__ import annotations

import gc
from pathlib import Path

import pytest

from mscfs.config.document import Document, UnreadableError
from mscfs.config.load import load_config
from mscfs.errors import ConfigError
from tests.config.samples import write

YAML = """\
# a comment
profiles:
  a:
    replicas:
    - replica_profile: b
    - {replica_profile: c, read_priority: 1}
cache:
  size: 1G
"""


def refused(path: Path) -> str:
    with pytest.raises(UnreadableError) as caught:
        Document.read(path)
    return str(caught.value.problem)


def test_lines_of_keys_and_of_the_nearest_known_key(tmp_path: Path) -> None:
    document = Document.read(write(tmp_path / "c.yaml", YAML))
    assert document.line(("profiles",)) == 2
    assert document.line(("profiles", "a", "replicas")) == 4
    assert document.line(("profiles", "a", "replicas", 1, "read_priority")) == 6
    assert document.line(("profiles", "a", "replicas", 0, "read_priority")) == 5
    assert document.line(("cache", "location")) == 7
    assert document.line(("posix",)) is None
    assert document.line(("profiles", "a", "replicas", 7)) == 4


def test_lines_of_json(tmp_path: Path) -> None:
    document = Document.read(write(tmp_path / "c.json", '{\n "profiles": {\n  "a": {}}}'))
    assert document.data == {"profiles": {"a": {}}}
    assert document.line(("profiles", "a")) == 3


def test_json_that_is_no_yaml_is_read_without_lines(tmp_path: Path) -> None:
    document = Document.read(write(tmp_path / "c.json", '{\n\t"profiles":\t{}\n}'))
    assert document.data == {"profiles": {}}
    assert document.line(("profiles",)) in {None, 2}


def test_the_format_follows_the_suffix(tmp_path: Path) -> None:
    assert Document.read(write(tmp_path / "c.conf", "profiles: {}")).data == {"profiles": {}}
    assert "is not valid JSON" in refused(write(tmp_path / "c.json", "profiles: {}"))


@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_an_empty_file_is_an_empty_configuration(tmp_path: Path, name: str) -> None:
    assert Document.read(write(tmp_path / name, "")).data == {}


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(b'\xef\xbb\xbf{"profiles": {}}')
    assert Document.read(tmp_path / "c.json").data == {"profiles": {}}


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    text = "profiles:\n  a: &a {comment: x, retry: {attempts: 1}}\n  b:\n    <<: *a\n    <<: {comment: z}\n"
    text += "    comment: y\n"
    document = Document.read(write(tmp_path / "c.yaml", text))
    assert document.data["profiles"]["b"] == {"comment": "y", "retry": {"attempts": 1}}
    assert list(document.repeated_keys()) == []


def test_repeated_keys_are_found(tmp_path: Path) -> None:
    text = "profiles:\n  a: {comment: x}\n  a: {comment: y, comment: z}\n"
    document = Document.read(write(tmp_path / "c.yaml", text))
    assert list(document.repeated_keys()) == [("profiles", "a"), ("profiles", "a", "comment")]
    assert document.line(("profiles", "a")) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- a\n- b\n", "must be a mapping"),
        ("just text", "must be a mapping"),
        ("a: [1, 2\nb: 3\n", "is not valid YAML"),
        ("a: 1\n---\nb: 2\n", "is not valid YAML"),
        ("a: !python/object:os.system x", "is not valid YAML"),
        ("a: 2024-13-45", "put it in quotes"),
        ("a: \x01", "characters that are not allowed"),
    ],
)
def test_what_is_no_configuration_says_so_with_the_file(tmp_path: Path, content: str, words: str) -> None:
    path = write(tmp_path / "c.yaml", content)
    message = refused(path)
    assert message.startswith(str(path))
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_endless_nesting_says_so(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, '{"cache": ' + "[" * 3000 + "]" * 3000 + "}")
    # A collection at the end of the stack would run finalizers of other tests' leftovers without room to do so.
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ConfigError, match=r"c\.(yaml|json): is nested too deeply"):
            load_config(path)
    finally:
        gc.enable()


def test_an_alias_inside_its_own_anchor_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="an alias refers to itself"):
        load_config(write(tmp_path / "c.yaml", "profiles: &x\n  a: *x\n"))


def test_L5_aliases_that_multiply_are_refused_at_once(tmp_path: Path) -> None:
    laughs = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    laughs += [f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]" for number in range(1, 40)]
    message = refused(write(tmp_path / "c.yaml", "\n".join(laughs)))
    assert "aliases that multiply" in message
    write(tmp_path / "c.yaml", "profiles: {}\nx: &x [1]\ny: [*x, *x]\n")
    assert Document.read(tmp_path / "c.yaml").data["y"] == [[1], [1]]


@pytest.mark.parametrize("text", ["\\u0000", "\\ud800", "\\udfff\\ud800"])
@pytest.mark.parametrize("where", ['{{"a": "{}"}}', '{{"{}": 1}}', '{{"a": [{{"b": ["{}"]}}]}}'])
def test_L5_json_may_hold_nothing_that_is_no_text(tmp_path: Path, where: str, text: str) -> None:
    assert "characters that are not allowed" in refused(write(tmp_path / "c.json", where.format(f"/x{text}")))


def test_json_that_spells_a_surrogate_pair_is_text(tmp_path: Path) -> None:
    assert Document.read(write(tmp_path / "c.json", '{"a": "\\ud83d\\ude00"}')).data == {"a": "😀"}


@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_L5_a_number_without_end_is_refused(tmp_path: Path, name: str) -> None:
    assert "a number is out of range" in refused(write(tmp_path / name, '{"a": ' + "9" * 5000 + "}")).replace(
        "a date or number", "a number"
    )


def test_a_syntax_error_has_its_line(tmp_path: Path) -> None:
    assert refused(write(tmp_path / "c.yaml", "a: 1\nb: ]\nc: 1\n")).startswith(f"{tmp_path}/c.yaml:2: ")
    assert refused(write(tmp_path / "c.yaml", "a: 1\nb: {\n")).startswith(f"{tmp_path}/c.yaml:2: ")
    assert refused(write(tmp_path / "c.json", '{"a": 1,\n"b": }')).startswith(f"{tmp_path}/c.json:2: ")


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.yaml")
    assert "Is a directory" in refused(tmp_path)
    (tmp_path / "c.yaml").write_bytes(b"a: \xff\xfe")
    assert "is not UTF-8" in refused(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    "content",
    ["key: *hunter2", "key: !hunter2 x", "key: %hunter2", "key: 'x' hunter2", "key: {a: hunter2", "key: @hunter2"],
)
def test_L5_a_syntax_error_does_not_repeat_the_text(tmp_path: Path, content: str) -> None:
    assert "hunter2" not in refused(write(tmp_path / "c.yaml", content))
