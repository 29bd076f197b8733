"""fetch: get and check a model's weights and the trait's external files."""

from pydantic import Field

from undertow.lineage.stages import begin, finish
from undertow.models.loading import ModelFiles, describe, resolve
from undertow.study.files import write_json
from undertow.study.layout import Meter, Study, manifest
from undertow.study.records import Record
from undertow.study.traits import TraitData


class FetchResult(Record):
    """results/models/<model>.json: what was fetched, by hash."""

    model: str
    licence: str
    files: ModelFiles
    trait: dict[str, str] = Field(description="external files of the trait: name -> SHA-256")


def run(study: Study, model: str) -> None:
    """Write results/models/<model>.json and its manifest."""
    work, meter = begin(study, "fetch", model), Meter("cpu")
    spec = study.params.model_spec(model)
    trait = TraitData(study.layout, study.params.trait)
    overrefusal = study.params.evaluation.overrefusal_prompts > 0
    files = describe(resolve(model, spec))
    write_json(
        study.layout.fetched(model),
        FetchResult(
            model=model,
            licence=spec.licence,
            files=files,
            trait=trait.fetch(overrefusal=overrefusal),
        ),
    )
    command = f"python cli.py fetch --model {model}"
    finish(study, work, manifest("fetch", model, command, meter))
