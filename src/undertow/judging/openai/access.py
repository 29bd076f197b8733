"""What a judge's endpoint is reached with: key, address, proxy, certificates.

All of it comes from the environment and params.yaml, and is checked once, before the first
request: a key that ends in a line break would otherwise fail on every row as a lost connection.
Key and passwords are held here and taken out of whatever the endpoint says.
"""

import importlib.util
import ipaddress
import os
import re
import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2
import openai
from openai import AsyncOpenAI, OpenAI

from undertow.config import OpenAiJudgeSettings
from undertow.errors import UndertowError
from undertow.texts.addresses import redacted

OPENAI = "https://api.openai.com/v1"
NO_KEY = "none"  # for endpoints that ask for no key; the client insists on one
HEADERS = ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")  # sent as headers, as they are
SOCKS = ("socks5", "socks5h")


class Access(NamedTuple):
    """A way to the endpoint that has been checked; url may hold a password."""

    key: str
    url: str
    proxy: str | None
    certificates: ssl.SSLContext | None

    def client(self, timeout: float) -> AsyncOpenAI:
        """The official client; retries are ours, so that each one is paced and counted."""
        # A transport of our own: the client's would take proxies from the environment, also for
        # an endpoint on this machine.
        transport = httpx2.AsyncHTTPTransport(
            verify=self.certificates or True,
            trust_env=False,
            proxy=self.proxy,
            limits=openai.DEFAULT_CONNECTION_LIMITS,
        )
        return AsyncOpenAI(
            api_key=self.key,
            base_url=self.url,
            max_retries=0,
            timeout=timeout,
            http_client=openai.DefaultAsyncHttpxClient(transport=transport, timeout=timeout),
        )

    def blocking_client(self, timeout: float) -> OpenAI:
        """The same without an event loop, with the client's own retries."""
        transport = httpx2.HTTPTransport(
            verify=self.certificates or True, trust_env=False, proxy=self.proxy
        )
        return OpenAI(
            api_key=self.key,
            base_url=self.url,
            timeout=timeout,
            http_client=openai.DefaultHttpxClient(transport=transport, timeout=timeout),
        )

    def redacted(self, text: str) -> str:
        """The text without key and password, in whatever case they are said back."""
        password = urlsplit(self.url).password or ""
        return redacted(text, (self.key, password, unquote(password)), "[key]")


def address(settings: OpenAiJudgeSettings) -> str:
    """The endpoint's address, without anything secret that stands in it."""
    _, _, parts = _endpoint(settings)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/")


def check_access(settings: OpenAiJudgeSettings) -> Access:
    """UndertowError names the variable, what is wrong with it, and what to type."""
    name, url, _ = _endpoint(settings)
    if not os.environ.get("OPENAI_API_KEY") and address(settings) == OPENAI:
        raise UndertowError(
            "judging.judge is openai, and OPENAI_API_KEY is not set",
            "export OPENAI_API_KEY=..., or set judging.judge: {kind: phrases} in params.yaml",
        )
    return access_to(name, url)


def access_to(name: str, url: str) -> Access:
    """The same for any endpoint; name: where its address was given."""
    for variable in HEADERS:
        _check_header(variable, os.environ.get(variable, ""))
    parts = _address(name, url).parts
    key = os.environ.get("OPENAI_API_KEY") or ""
    proxy = _proxy(parts)
    encrypted = parts.scheme == "https" or (proxy or "").startswith("https")
    return Access(key or NO_KEY, url, proxy, _certificates() if encrypted else None)


class _Named(NamedTuple):
    variable: str
    url: str
    parts: SplitResult


def _endpoint(settings: OpenAiJudgeSettings) -> _Named:
    """Where the endpoint is named, and its address."""
    name, url = "judging.judge.base_url", settings.base_url
    if not url:
        name, url = "OPENAI_BASE_URL", os.environ.get("OPENAI_BASE_URL") or OPENAI
    return _address(name, url)


def _address(name: str, url: str) -> _Named:
    remedy = f"correct {name}, for example {OPENAI}"
    return _Named(name, url, _parts(name, url, ("http", "https"), remedy))


def _check_header(variable: str, value: str) -> None:
    """A header carries printable ASCII; the value itself is not shown."""
    wrong = re.search(r"[^!-~]", value)
    if wrong is None:
        return
    what = "line break" if wrong[0] in "\r\n" else "blank" if wrong[0].isspace() else None
    if what is None:
        problem = f"its character {wrong.start() + 1} cannot be sent: keys are printable ASCII"
    elif not value[wrong.start() :].strip():
        problem = f"it ends in a {what}"
    else:
        problem = f"its character {wrong.start() + 1} is a {what}"
    raise UndertowError(
        f"{variable} cannot be used: {problem}",
        f'export {variable}="$(printf %s "${variable}" | tr -d \'[:space:]\')"; where that does '
        "not help, copy it again from where you got it",
    )


def _parts(name: str, url: str, schemes: tuple[str, ...], remedy: str) -> SplitResult:
    """The parts of an address; it may hold a password, so it is not shown."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        # The standard library's text repeats what stood in the port's place.
        reason = "its port is not a number from 0 to 65535" if "ort" in str(error) else "no address"
        raise UndertowError(f"{name} cannot be used: {reason}", remedy) from None
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise UndertowError(f"{name} cannot be used: it holds a blank or a line break", remedy)
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        known = " or ".join(f"{scheme}://" for scheme in schemes)
        raise UndertowError(f"{name} cannot be used: it is not {known} and a host", remedy)
    return parts


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _proxy(endpoint: SplitResult) -> str | None:
    """The proxy that the environment asks for; none for this machine and for NO_PROXY."""
    host = endpoint.hostname or ""
    if _is_local(host) or proxy_bypass(host):
        return None
    asked = getproxies()
    for kind in (endpoint.scheme, "all"):
        if proxy := asked.get(kind):
            names = (f"{kind}_proxy", f"{kind.upper()}_PROXY")
            name = next((each for each in names if each in os.environ), names[1])
            url = proxy if "://" in proxy else f"http://{proxy}"
            remedy = f"correct {name}, or: unset {name}"
            parts = _parts(name, url, ("http", "https", *SOCKS), remedy)
            if parts.scheme in SOCKS and importlib.util.find_spec("socksio") is None:
                raise UndertowError(
                    f"{name} asks for a SOCKS proxy, which needs the package socksio",
                    f"pip install socksio, or: unset {name}",
                )
            return url
    return None


def _certificates() -> ssl.SSLContext | None:
    """What SSL_CERT_FILE or SSL_CERT_DIR name; None leaves the system's own."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if not (path := os.environ.get(name)):
            continue
        try:
            if name == "SSL_CERT_FILE":
                return ssl.create_default_context(cafile=path)
            next(Path(path).iterdir(), None)
            return ssl.create_default_context(capath=path)
        except OSError as error:  # ssl.SSLError is one: a file that holds no certificates
            unreadable = isinstance(error, ssl.SSLError) or not error.strerror
            reason = "it holds no certificates" if unreadable else error.strerror
            raise UndertowError(
                f"{name} is {path}: {reason}", f"correct {name}, or: unset {name}"
            ) from None
    return None
