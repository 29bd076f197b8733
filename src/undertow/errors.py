"""The one error that a user is meant to read: what happened, where, and what to type next."""


class UndertowError(Exception):
    """A problem that the user can solve.

    message says what happened and where; remedy says what to do or type.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.remedy}"


class ConfigError(UndertowError):
    """params.yaml cannot be used; the message lists every problem at once."""


class SourceError(UndertowError):
    """Bytes that were asked for by hash or revision could not be had."""


class DataError(UndertowError):
    """A data file is missing or does not hold what it should."""
