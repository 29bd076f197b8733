"""What the models of a grid still need before they can be used: disk and licences.

Estimates from params.yaml and from what lies on this machine; asks nobody and hashes nothing.
"""

import re
from pathlib import Path

from huggingface_hub import constants

from undertow.config import FolderWeights, GgufWeights, HubWeights, ModelSpec, Params
from undertow.errors import UndertowError
from undertow.study.sources import cache_folder, local_folder

BYTES_PER_NUMBER = {"float32": 4, "bfloat16": 2}
GGUF_BYTES_PER_NUMBER = 1  # the usual quantizations stay below this


def still_gated(params: Params) -> list[str]:
    """Models of the grid whose licence must be accepted before they can be downloaded."""
    return [
        name
        for name, spec in _absent(params).items()
        if isinstance(spec.weights, HubWeights) and spec.weights.gated
    ]


def needed_bytes(params: Params) -> dict[Path, int]:
    """About how many bytes fetching the grid's models will put into which folder."""
    needs: dict[Path, int] = {}
    for name, spec in _absent(params).items():
        numbers = _numbers(name)
        if numbers is None:
            continue
        if isinstance(spec.weights, GgufWeights):
            # The file itself, perhaps twice (hub cache and ours), and its conversion
            size, folder = 2 * GGUF_BYTES_PER_NUMBER + BYTES_PER_NUMBER[spec.dtype], cache_folder()
        else:
            size, folder = BYTES_PER_NUMBER[spec.dtype], Path(constants.HF_HUB_CACHE)
        needs[folder] = needs.get(folder, 0) + numbers * size
    return needs


def unknown_size(params: Params) -> list[str]:
    """Models that are still to be fetched and whose name does not tell their size."""
    return [name for name in _absent(params) if _numbers(name) is None]


def _absent(params: Params) -> dict[str, ModelSpec]:
    specs = {name: params.model_spec(name) for name in params.grid.models}
    return {name: spec for name, spec in specs.items() if not _present(spec)}


def _present(spec: ModelSpec) -> bool:
    match spec.weights:
        case FolderWeights():
            return True
        case GgufWeights() as weights:
            return (cache_folder() / "converted" / f"{weights.sha256}-{spec.dtype}").exists()
        case HubWeights() as weights:
            folder = "models--" + weights.repo.replace("/", "--")
            snapshot = Path(constants.HF_HUB_CACHE, folder, "snapshots", weights.revision)
            return snapshot.exists() or _has_local_copy(weights.repo)


def _has_local_copy(repo: str) -> bool:
    try:
        folder = local_folder()
    except UndertowError:
        return False  # a wrong UNDERTOW_LOCAL holds no copy; fetching will say so
    return folder is not None and (folder / repo.split("/")[-1]).exists()


def _numbers(name: str) -> int | None:
    """Parameters, read from the usual way of naming models: 135m, 0.5b, 7b."""
    match = re.search(r"(?:^|[-_.])(\d+(?:\.\d+)?)([mb])(?:$|[-_.])", name.lower())
    return int(float(match[1]) * (1e6 if match[2] == "m" else 1e9)) if match else None
