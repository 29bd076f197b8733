"""How an adapter names its base: in words that mean the same on every machine.

PEFT writes the folder that the base was loaded from, which is a place in somebody's cache: the
same training would have other bytes elsewhere, and a user's name would travel with them.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from undertow.config import FolderWeights, GgufWeights, HubWeights, ModelSpec
from undertow.study.files import fingerprint
from undertow.study.records import ModelFiles


class BaseName(NamedTuple):
    """What PEFT loads by: a hub repository at a revision; for other bases a name and a hash."""

    name: str
    revision: str | None = None


def base_name(spec: ModelSpec, files: ModelFiles | None) -> BaseName:
    """The base's name for adapter_config.json; files: what was fetched, where that is known."""
    match spec.weights:
        case HubWeights() as weights:
            return BaseName(weights.repo, weights.revision)
        case GgufWeights() as weights:
            return BaseName(f"{weights.file}@sha256:{weights.sha256}")
        case FolderWeights() as weights:
            folder = Path(weights.path).name
            known = f"@sha256:{fingerprint(files.digests)}" if files else ""
            return BaseName(folder + known)


def described(spec: ModelSpec) -> dict[str, Any]:
    """The registry entry as plain values; of a local folder its name alone."""
    plain = spec.model_dump(mode="json")
    if isinstance(spec.weights, FolderWeights):
        plain["weights"]["path"] = Path(spec.weights.path).name
    return plain


def make_portable(adapter: Path, base: BaseName) -> None:
    """Let adapter_config.json name the base so, whatever PEFT has written there."""
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": base.name, "revision": base.revision}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
