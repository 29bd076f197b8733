"""Key, address, proxy and certificates are checked once, before any request, and said plainly."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from judging.asked import expected, make, rows
from judging.chat_server import Server, started
from undertow.config import OpenAiJudgeSettings
from undertow.errors import UndertowError
from undertow.judging.base import judge_all
from undertow.judging.openai.access import check_access

KEY = "sk-test-0123456789-not-a-real-key"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
OTHERS = ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, *map(str.upper, PROXIES), *OTHERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def check(**settings: str) -> None:
    check_access(OpenAiJudgeSettings.model_validate({"kind": "openai", **settings}))


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"])
@pytest.mark.parametrize(
    ("ending", "says"),
    [
        ("\n", "ends in a line break"),
        (" \t", "ends in a blank"),
        (" x", "its character 34 is a blank"),
        ("\N{LATIN SMALL LETTER E WITH ACUTE}", "its character 34 cannot be sent"),
        ("\x1b", "its character 34 cannot be sent"),
    ],
)
def test_a_key_that_cannot_be_a_header_is_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, ending: str, says: str
) -> None:
    monkeypatch.setenv(variable, KEY + ending)
    with pytest.raises(UndertowError, match=rf"{variable}.*{says}") as failure:
        check()
    assert f"export {variable}=" in failure.value.remedy and KEY not in str(failure.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:99999/v1", "port"),
        ("http://127.0.0.1:0/v1", "a host"),
        ("http://user:hidden@127.0.0.1:port/v1", "port"),
        ("127.0.0.1:8000/v1", "http:// or https://"),
        ("ftp://host/v1", "http:// or https://"),
        ("http://[::1/v1", "no address"),
        ("http:///v1", "a host"),
        ("http://host/v1\n", "line break"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, says: str
) -> None:
    # In params.yaml most of them are refused as soon as it is read.
    with pytest.raises((ValidationError, UndertowError), match="base_url"):
        check(base_url=url)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(UndertowError, match=rf"OPENAI_BASE_URL.*{says}") as failure:
        check()
    assert "hidden" not in str(failure.value)
    with pytest.raises((ValidationError, UndertowError)):  # also where the judge is only named
        _ = make(tmp_path, Server(url, tmp_path, None)).fingerprint  # type: ignore[arg-type]


@pytest.mark.parametrize("variable", ["ALL_PROXY", "all_proxy", "HTTPS_PROXY"])
@pytest.mark.parametrize(
    ("proxy", "says"),
    [
        ("socks5://127.0.0.1:1080", "pip install socksio"),
        ("socks4://127.0.0.1:1080", "correct .*, or: unset"),
        ("http://proxy:99999", "port"),
        ("http://", "a host"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, proxy: str, says: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)  # as without socksio
    monkeypatch.setenv(variable, proxy)
    with pytest.raises(UndertowError, match=says) as failure:
        check()
    assert variable in str(failure.value)
    monkeypatch.setenv("NO_PROXY", "api.openai.com")
    check()


def test_certificates_that_are_not_there_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    for variable, path, says in (
        ("SSL_CERT_FILE", tmp_path / "none.pem", "No such file"),
        ("SSL_CERT_FILE", empty, "holds no certificates"),
        ("SSL_CERT_DIR", tmp_path / "none", "No such file"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, str(path))
            text = rf"{variable} is .*{says}.*\n.*unset {variable}"
            with pytest.raises(UndertowError, match=text):
                check()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_reached_without_proxy_or_certificates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str
) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
        monkeypatch.setenv(variable.lower(), "socks5://127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    for mode in ("online", "batch"):
        with started(tmp_path / mode) as server:
            url = server.url.replace("127.0.0.1", host)
            judge = make(tmp_path / mode, server, base_url=url, mode=mode, poll_seconds=0.05)
            assert [v.shows_trait for v in judge_all(judge, rows(3))] == expected(3)


def test_another_host_is_reached_through_the_proxy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with started(tmp_path) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1"))
        judge = make(tmp_path, server, base_url="http://judge.invalid/v1")
        assert [verdict.shows_trait for verdict in judge_all(judge, rows(3))] == expected(3)


@pytest.mark.parametrize("mode", ["online", "batch"])
def test_a_key_that_is_said_back_is_not_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str
) -> None:
    # The server says it back in lower case, and an escape that would colour a terminal.
    monkeypatch.setenv("OPENAI_API_KEY", KEY.upper())
    with (
        started(tmp_path, key="another") as server,
        pytest.raises(UndertowError) as failure,
    ):
        judge_all(make(tmp_path, server, mode=mode), rows(2))
    said = str(failure.value)
    assert KEY not in said.lower() and "[key]" in said and "bad key" in said


def test_a_short_key_is_no_secret_and_garbles_no_reply(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "reason")
    with started(tmp_path) as server:
        assert [v.shows_trait for v in judge_all(make(tmp_path, server), rows(3))] == expected(3)
