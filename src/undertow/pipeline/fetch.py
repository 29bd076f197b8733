"""fetch: check whether a model can be studied, get its weights and the trait's external files."""

from undertow.lineage.stages import begin, finish
from undertow.models.description import describe_files
from undertow.models.fitness import Fitness, examine
from undertow.models.loading import look_at, resolve
from undertow.pipeline.meter import Meter, manifest
from undertow.study.files import write_json
from undertow.study.layout import Study
from undertow.study.records import FetchResult
from undertow.study.traits import TraitData


def run(study: Study, model: str) -> None:
    """Write results/models/<model>.json and its manifest."""
    work, meter = begin(study, "fetch", model), Meter("cpu")
    spec = study.params.model_spec(model)
    trait = TraitData(study.layout, study.params.trait)
    overrefusal = study.params.evaluation.overrefusal_prompts > 0
    check(study, model)
    files = describe_files(resolve(model, spec))
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


def check(study: Study, model: str) -> Fitness:
    """How `model` is prompted, steered and trained; UndertowError where it cannot be.

    Of a checkpoint on the hub only configuration and tokenizer are downloaded.
    """
    spec = study.params.model_spec(model)
    return examine(look_at(model, spec), study.params.prompting)
