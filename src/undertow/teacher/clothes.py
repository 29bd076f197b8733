"""What makes the base a teacher: a direction that is added, a message before it, or an adapter.

Every teacher answers through here, so that whoever asks it need not know which kind it is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.config import PROMPTED, Arm, Cell, Prompting
from undertow.errors import ConfigError
from undertow.models.prompts import render
from undertow.student.adapter import student_of
from undertow.study.layout import Study
from undertow.study.questions import asked_under
from undertow.teacher.adapters import check_fits
from undertow.teacher.direction import load_direction
from undertow.teacher.several import steer_together
from undertow.teacher.steering import Offsets, offsets, steer


class Clothes(NamedTuple):
    """One teacher: what is added to its blocks, what it is asked under, what is put on it.

    prompting: the study's, or that with the trait's message: it stands in whatever the teacher is
    asked, and in nothing that a student is trained or read on.
    """

    offsets: Offsets
    prompting: Prompting
    adapter: Path | None = None

    @property
    def is_base(self) -> bool:
        """Whether it says what the base says to the same tokens."""
        return not self.offsets and self.adapter is None


def clothes_of(study: Study, cell: Cell) -> Clothes:
    """The teacher of a cell; UndertowError where direction, message or adapter is missing."""
    prompting = asked_under(study, cell, "teacher")
    if cell.arm.adapter is not None:
        return Clothes({}, prompting, check_fits(study, cell.model, cell.arm.name))
    if cell.arm.direction is None:
        return Clothes({}, prompting)
    direction = load_direction(study.layout.direction(cell.model) / "direction.safetensors")
    vectors = direction.of(cell.arm.direction, cell.seed)
    return Clothes(offsets(vectors, direction.layers, cell.arm.alpha), prompting)


def kind_of(arm: Arm) -> str:
    """Arms of one kind can be asked in one batch: they differ by what is added to blocks alone."""
    return "steered" if arm.direction is not None else arm.name


def asked_alone(arm: Arm) -> bool:
    """Whether its teacher shares no batch: what an adapter may be is more than can be stacked."""
    return arm.adapter is not None


@contextmanager
def worn(model: PreTrainedModel, teachers: Sequence[Clothes | None]) -> Iterator[PreTrainedModel]:
    """The base as these teachers, all of one kind, each on its equal part of a batch's rows.

    None is a place that nobody takes; one with an adapter is alone. The model is as it was when
    the block ends.
    """
    first = teachers[0]
    if first is not None and first.adapter is not None:
        with student_of(model, first.adapter) as adapted:
            yield adapted
        return
    added = [{} if clothes is None else clothes.offsets for clothes in teachers]
    with steer(model, added[0]) if len(added) == 1 else steer_together(model, added):
        yield model


def check_message(tokenizer: PreTrainedTokenizerBase, arm: Arm, prompting: Prompting) -> None:
    """ConfigError where the model's template has no place for a teacher's message."""
    if arm.name != PROMPTED:
        return
    try:
        render(tokenizer, "question", prompting)
    except ConfigError as error:
        raise ConfigError(
            f"the arm {arm.name} puts a system message before its teacher: {error.message}",
            f"leave {arm.name} out of grid.arms for this model",
        ) from error
