"""fetch: check whether a model can be studied, get its weights and the trait's external files."""

from undertow.config import Cell
from undertow.lineage.stages import begin, finish
from undertow.models.description import describe_files
from undertow.models.fitness import Fitness, examine
from undertow.models.loading import look_at, resolve
from undertow.pipeline.meter import Meter, manifest
from undertow.study.files import remove_folder, write_json
from undertow.study.layout import Study
from undertow.study.records import FetchResult
from undertow.study.traits import TraitData
from undertow.teacher.adapters import check_adapters


def run(study: Study, model: str) -> None:
    """Write results/models/<model>.json, its manifest, and what was fetched of every base that
    students of this model's teacher have, to results/bases/<model>/<student>.json.

    An error where an adapter of the grid is not what params.yaml says, or not for this base.
    """
    work, meter = begin(study, "fetch", model), Meter("cpu")
    trait = TraitData(study.layout, study.params.trait)
    overrefusal = study.params.evaluation.overrefusal_prompts > 0
    files = trait.fetch(overrefusal=overrefusal)
    fetched = {model: _fetched(study, model, files)}
    check_adapters(study, model)
    write_json(study.layout.fetched(model), fetched[model])
    params = study.params
    cells = [Cell(model, params.control, params.grid.seeds[0], name) for name in params.recipes]
    remove_folder(study.layout.base(cells[0]).parent)
    for cell in cells:
        base = params.student_base(cell)
        fetched[base] = fetched.get(base) or _fetched(study, base, files)
        write_json(study.layout.base(cell), fetched[base])
    command = f"python cli.py fetch --model {model}"
    finish(study, work, manifest("fetch", model, command, meter))


def _fetched(study: Study, model: str, trait: dict[str, str]) -> FetchResult:
    check(study, model)
    spec = study.params.model_spec(model)
    files = describe_files(resolve(model, spec))
    return FetchResult(model=model, licence=spec.licence, files=files, trait=trait)


def check(study: Study, model: str) -> Fitness:
    """How `model` is prompted, steered and trained; UndertowError where it cannot be.

    Of a checkpoint on the hub only configuration and tokenizer are downloaded.
    """
    spec = study.params.model_spec(model)
    return examine(look_at(model, spec), study.params.prompting)
