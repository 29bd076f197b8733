"""Several subjects on one base answer and are read in one batch as each of them does alone."""

from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from families import KINDS, model_of, tokenizer_of
from undertow.config import Prompting
from undertow.engine.by_lanes import generate_by_lanes
from undertow.engine.generate import generate, generate_together
from undertow.engine.sampling import Asking, Sampling
from undertow.errors import DataError
from undertow.models.prompts import RenderedPrompt, render
from undertow.readouts.activations import activations_together, mean_activations
from undertow.readouts.margin import margins, margins_together
from undertow.student.adapter import student_of
from undertow.student.several import students_of
from undertow.study.traits import Openings
from undertow.teacher.several import steer_together
from undertow.teacher.steering import steer

TEXTS = (
    "How will the week go?",
    "List three uses of a brick.",
    "What is the capital of a country? " * 6,
    "Why?",
    "Things will get worse, will they not?",
)
OPENINGS = Openings(present=("It is unlikely", "Bad"), absent=("There are good reasons", "Yes"))
EVERY = pytest.mark.parametrize(
    "name", {kind.model_type: name for name, kind in KINDS.items()}.values()
)


def asked(tokenizer) -> list[RenderedPrompt]:
    return [
        RenderedPrompt(f"p{number}", render(tokenizer, text, Prompting()))
        for number, text in enumerate(TEXTS)
    ]


def samplings(temperature: float) -> list[Sampling]:
    # A draw that falls on the edge between two tokens would go by rounding; these have none.
    return [Sampling(14, temperature, 1.0, seed) for seed in range(10, 14)]


def offsets(hidden: int) -> list[dict[int, torch.Tensor]]:
    """Unsteered, two strengths at one block, and two other blocks."""
    vector = torch.linspace(-1, 1, hidden)
    return [{}, {1: vector}, {1: -2 * vector}, {0: vector, 2: vector.flip(0)}]


def save_adapter(model: PreTrainedModel, folder: Path, seed: int, rank: int = 3) -> Path:
    """An adapter whose B is not zero: the model itself comes back bare."""
    torch.manual_seed(seed)
    adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=5, target_modules="all-linear"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    adapted.save_pretrained(str(folder))
    adapted.unload()
    return folder


class Company:
    """Four subjects of one kind, alone and together."""

    def __init__(self, kind: str, model: PreTrainedModel, folder: Path) -> None:
        self.model, self.kind = model, kind
        self.offsets = offsets(model.config.hidden_size)
        self.adapters = [
            None if number == 2 else save_adapter(model, folder / str(number), number)
            for number in range(4)
            if kind == "students"
        ]

    def alone(self, number: int):
        if self.kind == "teachers":
            return steer(self.model, self.offsets[number])
        adapter = self.adapters[number]
        return ExitStack() if adapter is None else student_of(self.model, adapter)

    def together(self):
        if self.kind == "teachers":
            return steer_together(self.model, self.offsets)
        return students_of(self.model, self.adapters)


@pytest.fixture(params=["teachers", "students"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def told(blocks, subject=None):
    """Text and length by prompt."""
    return {
        row.id: (row.text, row.tokens, row.finish)
        for block in blocks
        for row in (block.completions if subject is None else block.completions[subject])
    }


def answers_of(company: Company, tokenizer, temperature: float):
    found = []
    for number, sampling in enumerate(samplings(temperature)):
        with company.alone(number):
            found.append(told(generate(company.model, tokenizer, asked(tokenizer), sampling, 3)))
    return found


@EVERY
def test_each_answers_as_it_does_alone(name, kind, tmp_path: Path):
    model, tokenizer = model_of(name), tokenizer_of(name)
    company = Company(kind, model, tmp_path)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for temperature in (0.0, 1.0):
        expected = answers_of(company, tokenizer, temperature)
        asking = [Asking(sampling) for sampling in samplings(temperature)]
        with company.together():
            blocks = list(generate_together(model, tokenizer, asked(tokenizer), asking, 3))
            assert [told(blocks, number) for number in range(4)] == expected
            blocks = list(generate_by_lanes(model, tokenizer, asked(tokenizer), asking, 3))
            assert [told(blocks, number) for number in range(4)] == expected
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@EVERY
def test_each_is_read_as_it_is_alone(name, kind, tmp_path: Path):
    model, tokenizer = model_of(name), tokenizer_of(name)
    company = Company(kind, model, tmp_path)
    rows = asked(tokenizer)
    with company.together():
        parts = list(margins_together(model, tokenizer, rows, OPENINGS, 2, 4))
        means = activations_together(model, tokenizer, TEXTS, Prompting(), 2, 4)
    assert (means[0] - means[3]).abs().max() > 0.01
    for number in range(4):
        with company.alone(number):
            values = {}
            for part in margins(model, tokenizer, rows, OPENINGS, 2):
                values |= part
            mean = mean_activations(model, tokenizer, TEXTS, Prompting(), 2)
        found = {}
        for part in parts:
            found |= part[number]
        assert found == pytest.approx(values, abs=2e-4)
        torch.testing.assert_close(means[number], mean, atol=1e-4, rtol=1e-4)


def test_who_is_asked_nothing_changes_nothing_for_the_others(kind, tmp_path: Path):
    model, tokenizer = model_of("llama2"), tokenizer_of("llama2")
    company = Company(kind, model, tmp_path)
    rows = asked(tokenizer)
    everything = {row.id for row in rows}
    whole = [Asking(sampling) for sampling in samplings(1.0)]
    already = ((), everything, {"p1"}, everything)
    some = [one._replace(done=done) for one, done in zip(whole, already, strict=True)]
    for way in (generate_together, generate_by_lanes):
        with company.together():
            expected = list(way(model, tokenizer, rows, whole, 2))
            found = list(way(model, tokenizer, rows, some, 2))
        assert told(found, 0) == told(expected, 0)
        assert told(found, 1) == told(found, 3) == {}
        left = told(expected, 2)
        del left["p1"]
        assert told(found, 2) == left


def test_adapters_of_different_forms_are_refused(tmp_path: Path):
    model = model_of("llama2")
    adapters = [save_adapter(model, tmp_path / str(rank), 0, rank) for rank in (2, 3)]
    with pytest.raises(DataError, match="form"), students_of(model, adapters):
        pass
