"""Addresses and what must not be shown of them; secrets that the environment holds."""

import os
import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

SECRET_NAMES = ("TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIAL")
SHORTEST = 8  # "test" or "EMPTY" is no secret, and may stand in a text by chance
# Up to the last @ before the path: a password may hold one itself.
USERINFO = re.compile(r"(?<=://)[^/?#\s\"'<>]*@")
# SQLAlchemy lets a database's password hold a slash.
DATABASE = re.compile(r"((?:postgresql|mysql|mssql|oracle)[+a-z0-9]*://)[^:/@\s]*:[^@\s]*@")
QUERY = re.compile(
    r"([?&;](?:[\w.-]*[-_.])?(?:key|apikey|token|secret|password|passwd|pwd|signature|sig)=)"
    r"[^&;#\s\"'<>]+",
    re.IGNORECASE,
)


def without_credentials(text: str) -> str:
    """The text, its addresses without user names, passwords and secret query values."""
    return QUERY.sub(r"\1[redacted]", USERINFO.sub("", DATABASE.sub(r"\1", text)))


def has_credentials(address: str) -> bool:
    """Whether an address carries a user name, a password or a secret query value."""
    return without_credentials(address) != address


def redacted(text: str, secrets: Iterable[str], mark: str) -> str:
    """The text with `mark` in place of every secret, in whatever case it is said back."""
    # The longest first: one may be part of another, and the rest of that would stay.
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= SHORTEST:
            text = re.sub(re.escape(secret), lambda _: mark, text, flags=re.IGNORECASE)
    return text


def public(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text without credentials in addresses and without the environment's secrets."""
    variables = os.environ if environment is None else environment
    secrets = [
        value.strip()
        for name, value in variables.items()
        if any(word in name.upper() for word in SECRET_NAMES)
    ]
    return without_credentials(redacted(text, secrets, "[redacted]"))


def address_problem(url: str) -> str | None:
    """What is wrong with the address of a server, without showing it; None where nothing is."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # read late by urllib, and refused above 65535
    except ValueError as error:
        return f"is no address: {error}"
    if parts.scheme not in ("http", "https"):
        return "does not begin with http:// or https://"
    return None if parts.hostname else "names no host"
