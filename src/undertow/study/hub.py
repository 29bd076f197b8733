"""What a failed request to the hub means for the user."""

from collections.abc import Iterator
from typing import NamedTuple

from huggingface_hub import constants, is_offline_mode
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

try:
    from httpx2 import HTTPError as TransportError
except ImportError:  # huggingface_hub 1.x brings httpx in its place
    from httpx import HTTPError as TransportError  # type: ignore[no-redef, import-not-found]

HUB_ERRORS = (OSError, EntryNotFoundError, HFValidationError, TransportError)


class Unavailable(NamedTuple):
    """Why a place yields nothing, and what would change that."""

    reason: str
    remedy: str | None = None


def explain_hub_error(error: BaseException, repo: str) -> Unavailable:
    """What a failed hub request means for the user."""
    licence = (
        f"accept the licence at {constants.ENDPOINT}/{repo}, then set HF_TOKEN to a token of "
        "that account (or: hf auth login)"
    )
    # A refusal reaches us as the cause of "cannot be reached and is not cached"
    response = next((e.response for e in _chain(error) if isinstance(e, HfHubHTTPError)), None)
    status = response.status_code if response is not None else None
    match error:
        case GatedRepoError():
            return Unavailable(f"{repo} is gated and this account has no access", licence)
        case RevisionNotFoundError():
            return Unavailable(
                f"{repo} has no such revision", "correct the revision in params.yaml"
            )
        case RemoteEntryNotFoundError():
            return Unavailable(
                f"{repo} has no such file at this revision", "correct the file in params.yaml"
            )
        case RepositoryNotFoundError():
            return Unavailable(
                f"{repo} does not exist, or it is private or gated and no valid token was sent",
                f"check the name in params.yaml; if it is right, {licence}",
            )
        case _ if status in (401, 403):
            return Unavailable(f"the hub refused access to {repo} (HTTP {status})", licence)
        case _ if is_offline_mode():
            return Unavailable(
                "not in the hub's cache, and HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE"
            )
        case _:
            root = list(_chain(error))[-1]
            return Unavailable(
                f"the hub cannot be reached or answered wrongly ({first_line(root)})"
            )


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it, outermost first."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__
