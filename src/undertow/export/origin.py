"""Where an exported file comes from: what its card and its metadata say.

Knows nothing about file formats.
"""

from pathlib import Path
from typing import NamedTuple

from undertow.config import FolderWeights, GgufWeights, HubWeights, ModelSpec
from undertow.errors import UndertowError
from undertow.study.files import digest, fingerprint
from undertow.study.found import read_record
from undertow.study.layout import Study
from undertow.study.records import FetchResult, ModelFiles
from undertow.study.traits import Trait, TraitData
from undertow.teacher import direction as directions
from undertow.teacher.direction import Direction, read_metadata


class Origin(NamedTuple):
    """A direction of one model, and what it was extracted for.

    family: model_type of the base; base: a phrase that names it; hub: its hub repository, where
    it has one; direction_sha256: of the study's direction.safetensors.
    """

    model: str
    family: str
    base: str
    hub: str | None
    licence: str
    trait: Trait
    direction: Direction
    direction_sha256: str


def open_origin(study: Study, model: str) -> Origin:
    """The direction that the study steers `model` by.

    Raises UndertowError where the model was not fetched or the direction not extracted yet, or
    where it was extracted for another trait than the one in params.yaml: its card would name the
    wrong one.
    """
    spec = study.params.model_spec(model)
    path = study.layout.direction(model) / "direction.safetensors"
    direction = directions.load_direction(path)
    made_for = read_metadata(path).get("trait")
    if made_for != study.params.trait:
        raise UndertowError(
            f"{path} is the direction of the trait {made_for}, and params.yaml says "
            f"trait: {study.params.trait}",
            f"dvc repro, or: python cli.py direction --model {model}",
        )
    files = _fetched(study, model)
    return Origin(
        model,
        files.family,
        _base(spec, files),
        spec.weights.repo if isinstance(spec.weights, HubWeights) else None,
        spec.licence,
        TraitData(study.layout, study.params.trait).trait,
        direction,
        digest(path),
    )


def refuse_to_replace(path: Path, force: bool) -> None:
    """UndertowError where `path` is taken and `force` was not given."""
    if path.exists() and not force:
        raise UndertowError(
            f"{path} exists already", "choose another --out, or give --force to replace it"
        )


def _fetched(study: Study, model: str) -> ModelFiles:
    path = study.layout.fetched(model)
    if not path.exists():
        raise UndertowError(
            f"{path}, which says what {model} is, does not exist",
            f"dvc repro, or: python cli.py fetch --model {model}",
        )
    return read_record(path, FetchResult).files


def _base(spec: ModelSpec, files: ModelFiles) -> str:
    match spec.weights:
        case HubWeights() as weights:
            return f"{weights.repo} on the Hugging Face hub, revision {weights.revision}"
        case GgufWeights() as weights:
            return f"{weights.file} (GGUF, dequantized), SHA-256 {weights.sha256}"
        case FolderWeights():
            # The folder's path says something about a machine, not about the model.
            return f"a local checkpoint, SHA-256 of its files' digests {fingerprint(files.digests)}"
