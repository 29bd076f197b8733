"""Addresses are shown without what is secret in them, whatever text they stand in."""

import pytest

from undertow.texts.addresses import (
    address_problem,
    has_credentials,
    public,
    redacted,
    without_credentials,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pass@host/v1", "http://host/v1"),
        ("http://me:p@ss@host:80/v1?to=a@b", "http://host:80/v1?to=a@b"),
        ("cannot reach 'https://token@host'.", "cannot reach 'https://host'."),
        ("postgresql+psycopg2://me:pa/ss@host/db", "postgresql+psycopg2://host/db"),
        ("https://host/v1?api_key=abc&x=1", "https://host/v1?api_key=[redacted]&x=1"),
        ("https://host/v1?X-Signature=abc", "https://host/v1?X-Signature=[redacted]"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("https://host/?api-version=1 by a@b", "https://host/?api-version=1 by a@b"),
    ],
)
def test_credentials_are_left_out_and_nothing_else(text, shown):
    assert without_credentials(text) == shown
    assert has_credentials(text) == (text != shown)


def test_secrets_of_the_environment_are_left_out_of_any_text():
    environment = {"OPENAI_API_KEY": "sk-planted-0123\n", "HOME": "/home/somebody", "A_KEY": "x"}
    text = "x: sk-planted-0123 at http://me:pw@host in /home/somebody"
    assert public(text, environment) == "x: [redacted] at http://host in /home/somebody"


def test_what_is_wrong_with_an_address_is_said_without_showing_it():
    assert address_problem("https://host:8000/v1") is None
    assert "0-65535" in (address_problem("http://me:planted@host:99999") or "")
    assert "planted" not in (address_problem("http://me:planted@host:99999") or "")


def test_a_secret_is_taken_out_in_whatever_case_it_is_said():
    assert redacted("bad key SK-Canary-1!", ["sk-canary-1"], "[key]") == "bad key [key]!"


def test_nothing_is_left_of_a_secret_that_holds_another():
    assert redacted("abcdefgh-ijkl", ["abcdefgh", "abcdefgh-ijkl"], "*") == "*"


def test_a_short_value_is_a_word_and_stays():
    assert redacted("a test of tests", ["test"], "[key]") == "a test of tests"


def test_a_mark_is_no_pattern():
    assert redacted("of 12345678", ["12345678"], r"\1") == r"of \1"
