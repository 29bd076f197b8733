"""YAML is read as version 1.2, and what is written is read back as the same value."""

import pytest

from undertow.texts.yaml import YamlError, read_yaml, write_yaml


def test_what_is_written_is_read_back():
    value = {
        "b": {"switch": "yes", "time": "1:30", "text": "1e3", "octal": "010", "none": None},
        "a": [1e-05, True, "é", "", [], {"x": "word " * 60}],
    }
    assert read_yaml(write_yaml(value)) == value
    assert list(read_yaml(write_yaml(value))) == ["b", "a"]


def test_every_key_that_stands_twice_is_named_with_both_lines():
    with pytest.raises(YamlError) as caught:
        read_yaml("a: 1\nb:\n  - c: 2\n    c: 3\na: 4\n")
    assert caught.value.problems == [
        "b.0.c stands on line 3 and again on line 4",
        "a stands on line 1 and again on line 5",
    ]


@pytest.mark.parametrize(
    "text", ["a: 'x", "a: \x00", "a: *b", "a: {<<: 3}", "a: !!python/object:os.system x", "a: [1}"]
)
def test_what_is_no_yaml_is_one_kind_of_error(text):
    with pytest.raises(YamlError):
        read_yaml(text)


@pytest.mark.parametrize("text", ["a: &x [*x]", "&x [*x]", "a: &x {b: [*x]}", "a: " + "[" * 3000])
def test_what_has_no_end_or_nests_too_deeply_is_refused(text):
    with pytest.raises(YamlError, match=r"no end|too deeply"):
        read_yaml(text)


def test_an_alias_of_something_else_is_read():
    assert read_yaml("a: &x [1]\nb: *x\nc: {d: *x}") == {"a": [1], "b": [1], "c": {"d": [1]}}


def test_who_changes_what_was_read_changes_it_for_nobody_else():
    text = "a: {b: [1, 2]}"
    read_yaml(text)["a"]["b"].append(3)
    assert read_yaml(text) == {"a": {"b": [1, 2]}}
