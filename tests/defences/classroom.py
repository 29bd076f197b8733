"""A tiny teacher with a direction on disk, its carrier, and what defences draw on."""

from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from factories import make_params
from repository import ROOT
from tiny import tiny_model, tiny_tokenizer
from undertow.config import parse_arm
from undertow.config.cells import Cell
from undertow.config.defences import Defences
from undertow.defences.given import Given
from undertow.defences.lesson import Lesson
from undertow.defences.teach import taught
from undertow.pipeline.meter import Meter
from undertow.pipeline.reading import Reader, Subject
from undertow.student.teaching import Teaching
from undertow.study.carriers import CarrierData
from undertow.study.layout import Layout, Study
from undertow.study.records import Response
from undertow.teacher.clothes import clothes_of, worn
from undertow.teacher.direction import Direction, random_like, save_direction

MODEL, PROMPTS, LAYER = "tiny", 10, 1


class Class(NamedTuple):
    """given: of one cell; carrier: what its teacher wrote; base: what the base writes."""

    given: Given
    carrier: list[Response]
    base: list[Response]

    def lesson(self, carrier: list[Response]) -> Lesson:
        params = self.given.study.params
        return Lesson(tuple(carrier), params.prompting, Teaching([], params.distillation))

    def taught(self, **recipe: object) -> Lesson:
        return self.taught_on(self.carrier, **recipe)

    def taught_on(self, carrier: list[Response], **recipe: object) -> Lesson:
        return taught(Defences.model_validate(recipe), self.lesson(carrier), self.given)


def make_study(root: Path, **changes: dict[str, object]) -> Study:
    """A study on the real prompts; `changes` are merged into sections."""
    sections: dict[str, dict[str, object]] = {
        "direction": {"layers": (LAYER,), "contrast_prompts": 40},
        "carrier": {"prompts": PROMPTS, "max_new_tokens": 8, "temperature": 0.5},
        "distillation": {"learning_rate": 1e-2, "epochs": 2, "batch_size": 4},
        "runtime": {"batch_size": 4, "device": "cpu"},
        "evaluation": {"benign_prompts": 6},
    }
    for section, values in changes.items():
        sections[section] = sections.get(section, {}) | values
    root.mkdir(parents=True, exist_ok=True)
    (root / "data").symlink_to(ROOT / "data")
    arms = ("trait_0", "trait_1", "random_1")
    return Study(make_params([MODEL], arms, [0], **sections), Layout(root))


def open_class(
    root: Path,
    arm: str = "trait_1",
    seed: int = 0,
    *,
    family: str = "qwen2",
    vectors: torch.Tensor | None = None,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    **changes: dict[str, object],
) -> Class:
    """A class whose direction is random, and long enough to change what the model says."""
    study = make_study(root, **changes)
    tokenizer = tokenizer or tiny_tokenizer(family)
    model = model or tiny_model(family, len(tokenizer))
    if vectors is None:
        noise = torch.randn(3, 32, generator=torch.Generator().manual_seed(3))
        vectors = 2 * noise
    layers = list(study.params.direction.layers)
    direction = Direction(vectors, random_like(vectors, 0), layers, 0)
    folder = study.layout.direction(MODEL)
    folder.mkdir(parents=True)
    save_direction(folder / "direction.safetensors", direction, {"random_seed": 0})

    def ask(prompts, identity, prompting=None):
        subject = Subject(identity, seed)
        reader = Reader(study, model, tokenizer, Meter("cpu"), [subject], prompting=prompting)
        return reader.carrier(prompts)[0]

    cell = Cell(MODEL, parse_arm(arm), seed)
    prompts = CarrierData(study.layout, "benign").prompts(study.params.carrier.prompts)
    teacher = clothes_of(study, cell)
    with worn(model, [teacher]):
        carrier = ask(prompts, "the teacher's carrier", teacher.prompting)
    base = ask(prompts, "the control's carrier")
    return Class(Given(study, cell, model, tokenizer, ask), carrier, base)
