"""What the models of a grid still need before they can be used: disk and licences.

Sizes come from the files on this machine or from the hub's metadata, never from a name; what is
unknown is said to be so. Downloads nothing and hashes nothing.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, constants, try_to_load_from_cache

from undertow.config import FolderWeights, GgufWeights, HubPlace, HubWeights, ModelSpec, Params
from undertow.errors import UndertowError
from undertow.study.hub import HUB_ERRORS
from undertow.study.sources import cache_folder, local_folder

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
BYTES_PER_NUMBER = {"float32": 4, "bfloat16": 2}
SECONDS = 5  # that the hub has for an answer


def still_gated(params: Params) -> list[str]:
    """Models of the grid whose licence must be accepted before they can be downloaded."""
    return [
        name
        for name, spec in _absent(params).items()
        if isinstance(spec.weights, HubWeights) and spec.weights.gated
    ]


class Needs(NamedTuple):
    """folders: about how many bytes fetching will put where; unknown: models of unknown size."""

    folders: dict[Path, int]
    unknown: list[str]


def needs(params: Params) -> Needs:
    """What fetching the grid's models will take, by the files here and by the hub's metadata."""
    folders: dict[Path, int] = {}
    unknown = []
    for name, spec in _absent(params).items():
        match spec.weights:
            case GgufWeights() as weights:
                size, folder = _gguf(weights, BYTES_PER_NUMBER[spec.dtype]), cache_folder()
            case HubWeights() as weights:
                size, folder = _checkpoint(weights), Path(constants.HF_HUB_CACHE)
            case _:
                continue
        if size is None:
            unknown.append(name)
        else:
            folders[folder] = folders.get(folder, 0) + size
    return Needs(folders, unknown)


def _checkpoint(weights: HubWeights) -> int | None:
    """Bytes of a checkpoint's weights on the hub; None where it cannot be asked."""
    info = _ask(weights.repo, weights.revision, files_metadata=True)
    if info is None:
        return None
    sizes: list[int | None] = [
        file.size for file in info.siblings or () if file.rfilename.endswith(".safetensors")
    ]
    known = [size for size in sizes if size is not None]
    return sum(known) if known and len(known) == len(sizes) else None


def _gguf(weights: GgufWeights, bytes_per_number: int) -> int | None:
    """Bytes of a GGUF file still to come, and of its conversion."""
    if (path := _here(weights)) is not None:
        from gguf import GGUFReader

        numbers = sum(int(tensor.n_elements) for tensor in GGUFReader(path).tensors)
        return numbers * bytes_per_number
    for place in weights.places:
        if not isinstance(place, HubPlace):
            continue
        about = _ask(place.repo, place.revision, expand=["gguf"])
        files = _ask(place.repo, place.revision, files_metadata=True)
        if about is None or files is None or not about.gguf:
            continue
        sizes = [file.size for file in files.siblings or () if file.rfilename == place.file]
        if sizes and sizes[0] is not None:
            # The file itself lies in the hub's cache and in ours.
            return 2 * int(sizes[0]) + int(about.gguf["total"]) * bytes_per_number
    return None


def _here(weights: GgufWeights) -> Path | None:
    """The file, where it is on this machine already."""
    places = [cache_folder() / "files" / weights.sha256 / weights.file]
    with suppress(UndertowError):  # a wrong UNDERTOW_LOCAL holds nothing; fetching will say so
        if folder := local_folder():
            places.append(folder / weights.file)
    return next((path for path in places if path.exists()), None)


def _ask(repo: str, revision: str, **what: Any) -> Any:
    """The hub's metadata of a repository; None where there is no answer within seconds."""
    try:
        return HfApi().model_info(repo, revision=revision, timeout=SECONDS, **what)
    except HUB_ERRORS:
        return None


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
            return _cached(weights) or _has_local_copy(weights.repo)


def _cached(weights: HubWeights) -> bool:
    """Whether all weights lie in the hub's cache: a configuration may have come without them."""

    def find(file: str) -> Path | None:
        found = try_to_load_from_cache(weights.repo, file, revision=weights.revision)
        return Path(found) if isinstance(found, str) else None

    if find(WEIGHTS):
        return True
    index = find(INDEX)
    if index is None:
        return False
    shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return all(find(shard) for shard in set(shards))


def _has_local_copy(repo: str) -> bool:
    try:
        folder = local_folder()
    except UndertowError:
        return False  # a wrong UNDERTOW_LOCAL holds no copy; fetching will say so
    return folder is not None and (folder / repo.split("/")[-1]).exists()
