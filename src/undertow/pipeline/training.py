"""The training of cells, alone or in groups: kept whole, outside of DVC's outputs, until the
student has been read. A killed training leaves nothing; a finished one is taken up.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from math import isfinite, nan
from pathlib import Path
from typing import Any, NamedTuple

from undertow.config import Cell
from undertow.errors import ConfigError, DataError
from undertow.models import processes
from undertow.models.families import check_length
from undertow.models.loading import pick_device
from undertow.pipeline.loading import Loaded, Shelf
from undertow.student.base_name import base_name, described, make_portable
from undertow.student.rows import Row, training_rows
from undertow.student.teaching import Teaching
from undertow.student.together import Student, Together, why_alone
from undertow.study.files import atomic_folder, digest, fingerprint, write_json
from undertow.study.found import tensors
from undertow.study.layout import Study
from undertow.study.records import Costs, Response, Trainer
from undertow.study.results import read_base
from undertow.tracking import log_training


class Due(NamedTuple):
    """A cell whose student is to be trained on `carrier`, and where its training is kept."""

    cell: Cell
    carrier: Sequence[Response]
    checkpoint: Path


class FinishedTraining(NamedTuple):
    """A finished training: (step, loss) pairs and what it cost; the adapter is on disk."""

    losses: list[tuple[int, float]]
    costs: Costs
    trainer: Trainer


def checkpoint_of(study: Study, cell: Cell, carrier: Sequence[Response]) -> Path:
    """Where a finished training is kept, keyed by all it depends on."""
    params = study.params
    key = fingerprint(
        "distill",
        cell,
        params.model_spec(params.student_base(cell)),
        carrier,
        params.recipe(cell.student),
        params.distillation,
        params.prompting,
        params.runtime.device,
    )
    return study.layout.journal / key


def finished(checkpoint: Path) -> FinishedTraining | None:
    """The training that this stage has finished before it was killed, or a group has.

    DataError where what was kept is damaged.
    """
    record = checkpoint / "training.json"
    if not record.exists():
        return None
    config = checkpoint / "adapter" / "adapter_config.json"
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
        losses = [(step, nan if loss is None else loss) for step, loss in kept["losses"]]
        made = FinishedTraining(losses, Costs.model_validate(kept["costs"]), kept["trainer"])
        json.loads(config.read_text(encoding="utf-8"))
        with tensors(config.with_name("adapter_model.safetensors"), "np"):
            return made
    except (OSError, ValueError, KeyError, TypeError, DataError) as error:
        raise DataError(
            f"the finished training in {checkpoint} is damaged: "
            f"{error.message if isinstance(error, DataError) else error}",
            f"rm -r {checkpoint}, and give the same command again, which trains anew",
        ) from None


def trainer_of(study: Study, loaded: Loaded) -> Trainer:
    """Which trainer the parameters and the model call for; ConfigError where they disagree."""
    wanted = study.params.runtime.training
    if not may_be_together(study):
        return "trl"
    reason = why_alone(loaded.model, study.params.distillation)
    if reason is None:
        return "together"
    if wanted == "together":
        raise ConfigError(
            f"runtime.training: together was asked for, and {reason}",
            "set runtime.training to auto or trl",
        )
    return "trl"


def may_be_together(study: Study) -> bool:
    """What can be said before the model is loaded: a CPU gains nothing from it."""
    runtime = study.params.runtime
    if runtime.training == "auto":
        return pick_device(runtime.device).type == "cuda"
    return runtime.training == "together"


def train_alone(study: Study, due: Due, shelf: Shelf) -> FinishedTraining:
    """Train one student, by itself or as a group of one.

    Of several processes all train, and the main one keeps what came of it.
    """
    loaded = load(study, study.params.student_base(due.cell), shelf)
    teaching, seed = teaching_of(study, loaded, due), due.cell.seed
    if trainer_of(study, loaded) == "together":
        trainer = Together(loaded.model, loaded.tokenizer, [(teaching, seed)], size=1)
        try:
            return train_group(study, [due], [teaching], loaded, trainer)[0]
        finally:
            trainer.close()
    from undertow.student.training import train  # TRL takes seconds to import

    if not processes.is_main():
        train(loaded.model, loaded.tokenizer, teaching, seed, due.checkpoint, _ignore)
        return FinishedTraining([], loaded.meter.costs(), "trl")
    with (
        atomic_folder(due.checkpoint) as staged,
        log_training(study, due.cell, due.checkpoint.name) as tracker,
    ):
        adapter = staged / "adapter"
        done = train(loaded.model, loaded.tokenizer, teaching, seed, adapter, tracker.loss)
        loaded.meter.add_training(done.tokens, done.seconds)
        made = FinishedTraining(done.losses, _of_all_processes(loaded.meter.costs()), "trl")
        _keep(study, due, made, staged)
    return made


def train_group(
    study: Study,
    group: Sequence[Due],
    teachings: Sequence[Teaching],
    loaded: Loaded,
    trainer: Together,
) -> list[FinishedTraining]:
    """Train a group's students; a killed or failed group leaves nothing of any of them."""
    made = []
    with ExitStack() as stack:
        students, folders = [], []
        for due, own in zip(group, teachings, strict=True):
            folder = stack.enter_context(atomic_folder(due.checkpoint))
            tracker = stack.enter_context(log_training(study, due.cell, due.checkpoint.name))
            students.append(Student(own, due.cell.seed, folder / "adapter", tracker.loss))
            folders.append(folder)
        trained = [one for part in trainer.train(students) for one in part]
        whole = loaded.meter.costs()
        for due, folder, one in zip(group, folders, trained, strict=True):
            costs = _share(whole, len(group), one.tokens, one.seconds)
            made.append(FinishedTraining(one.losses, costs, "together"))
            _keep(study, due, made[-1], folder)
    return made


def teaching_of(study: Study, loaded: Loaded, due: Due) -> Teaching:
    """How the cell's student is taught."""
    settings = study.params.distillation_of(due.cell.student)
    return Teaching(rows_of(study, loaded, due), settings)


def rows_of(study: Study, loaded: Loaded, due: Due) -> list[Row]:
    """The carrier as token ids and labels; an error where the model cannot take their length."""
    rows = training_rows(loaded.tokenizer, due.carrier, study.params.prompting)
    check_length(loaded.model.config, max(len(row["input_ids"]) for row in rows))
    return rows


def load(study: Study, model: str, shelf: Shelf) -> Loaded:
    """The base that students are trained on, with a meter that starts now."""
    return shelf.load(study, model, nf4=study.params.distillation.quantization == "nf4")


def _keep(study: Study, due: Due, made: FinishedTraining, folder: Path) -> None:
    fetched = read_base(study.layout, due.cell)
    spec = study.params.model_spec(study.params.student_base(due.cell))
    files = fetched.files if fetched else None
    make_portable(folder / "adapter", base_name(spec, files))
    write_json(folder / "adapter" / "undertow.json", _provenance(study, due.cell, len(due.carrier)))
    kept: dict[str, Any] = {
        "losses": [(step, loss if isfinite(loss) else None) for step, loss in made.losses],
        "costs": made.costs.model_dump(mode="json"),
        "trainer": made.trainer,
    }
    write_json(folder / "training.json", kept)


def _share(whole: Costs, students: int, tokens: int, seconds: float) -> Costs:
    """A student's share of what its group took."""
    held = whole.gpu_seconds
    return whole.model_copy(
        update={
            "seconds": round(whole.seconds / students, 3),
            "load_seconds": round(whole.load_seconds / students, 3),
            "gpu_seconds": None if held is None else round(held / students, 3),
            "tokens_trained": tokens,
            "trained_per_second": round(tokens / seconds, 1),
        }
    )


def _ignore(_step: int, _loss: float, _rate: float) -> None:
    """The main process has the same losses and logs them."""


def _of_all_processes(costs: Costs) -> Costs:
    """Each process holds a device of its own while it trains."""
    held = costs.gpu_seconds
    return costs.model_copy(
        update={"gpu_seconds": None if held is None else held * processes.count()}
    )


def _provenance(study: Study, cell: Cell, rows: int) -> dict[str, object]:
    """What a reader of the adapter alone needs to know."""
    params = study.params
    return {
        "command": cell.command("distill"),
        "cell": cell.key,
        "trait": study.params.trait,
        "model": described(params.model_spec(params.student_base(cell))),
        "recipe": {cell.student: params.recipe(cell.student).model_dump(mode="json")},
        "distillation": params.distillation_of(cell.student).model_dump(mode="json"),
        "carrier_sha256": digest(study.layout.stage(cell, "steer") / "carrier.jsonl"),
        "carrier_filter": study.params.carrier.filter,
        "carrier_rows": rows,
    }
