"""Trained students, put on their base to be asked."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedModel

from undertow.config.defences import InoculateSettings
from undertow.student.adapter import student_of
from undertow.student.several import students_of
from undertow.study.records import BenignResponse


class Pupil(NamedTuple):
    """A trained student: its saved adapter, and the seed that it is asked with.

    taught: its teacher's answers to benign prompts that nobody was trained on; none where the
    teacher's base is another, whose likelihoods are no measure of this one's. inoculated: the
    message that stood in its training rows alone.
    """

    adapter: Path
    seed: int
    taught: Sequence[BenignResponse] = ()
    inoculated: InoculateSettings | None = None


def answering(
    model: PreTrainedModel, pupils: Sequence[Pupil | None]
) -> AbstractContextManager[PreTrainedModel]:
    """The base with these students on; the model itself comes back bare."""
    adapters = [None if pupil is None else pupil.adapter for pupil in pupils]
    if len(adapters) == 1 and adapters[0] is not None:
        return student_of(model, adapters[0])
    return students_of(model, adapters)
