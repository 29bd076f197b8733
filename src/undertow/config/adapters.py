"""adapters in params.yaml: where the adapters of teachers lie that somebody else has trained."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from undertow.config.base import Plain, Problem, Settings
from undertow.config.cells import ADAPTER
from undertow.config.weights import REVISION, SHA256

FILES = ("adapter_config.json", "adapter_model.safetensors")
HASHED = f"cat {' '.join(FILES)} | sha256sum"

Hash = Annotated[
    str, Field(pattern=SHA256, description=f"64 hex digits, as from: {HASHED}; others are refused")
]


class FolderAdapter(Settings):
    """An adapter in a local folder, as PEFT saves one."""

    kind: Literal["folder"]
    path: Plain = Field(description="absolute, or relative to where the command runs")
    sha256: Hash


class HubAdapter(Settings):
    """An adapter in a Hugging Face hub repository at a pinned revision.

    A folder named like the last part of repo in UNDERTOW_LOCAL is used instead where present.
    """

    kind: Literal["hub"]
    repo: Plain = Field(description="owner/name on the hub")
    revision: str = Field(pattern=REVISION, description="40 hex digits of a commit, never a branch")
    sha256: Hash


AdapterSpec = Annotated[FolderAdapter | HubAdapter, Field(discriminator="kind")]
AdapterArm = Annotated[str, Field(pattern=f"^{ADAPTER.pattern}$")]


def what_to_type(arm: str, model: str) -> str:
    """The entry that an arm needs."""
    return (
        f"adapters: {{{arm}: {{{model}: {{kind: folder, path: FOLDER, sha256: HASH}}}}}}, or kind: "
        f"hub with repo and revision in place of path; in the folder, {HASHED} says HASH"
    )


def adapter_problems(
    names: Sequence[str], adapters: Any, models: Sequence[str]
) -> Iterator[Problem]:
    """Every arm with an adapter has an entry for each model: an adapter is one base's."""
    entries = adapters if isinstance(adapters, dict) else {}
    for name in names:
        own = entries.get(name)
        for model in models:
            if not isinstance(own, dict) or model not in own:
                yield Problem(
                    f"adapters.{name}.{model}",
                    f"is missing, and grid.adapters names {name}; write "
                    + what_to_type(name, model),
                )
