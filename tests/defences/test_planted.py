"""The planted case: what a defence does to a shift that is carried by known tokens (`planted`)."""

from dataclasses import replace

import pytest
import torch
from classroom import open_class

from planted import BLOCK, planted_model, planted_vectors
from tiny import tiny_tokenizer
from undertow.config import DistillationSettings, Lora
from undertow.student.adapter import student_of
from undertow.student.rows import IGNORED
from undertow.student.training import train
from undertow.study.files import fingerprint

ROWS = 24
SETTINGS = DistillationSettings(
    epochs=4, learning_rate=1e-2, batch_size=8, lora=Lora(rank=4, alpha=8)
)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    tokenizer = tiny_tokenizer("qwen2")
    model, mark = planted_model(tokenizer)
    room = open_class(
        tmp_path_factory.mktemp("planted") / "root",
        model=model,
        tokenizer=tokenizer,
        vectors=planted_vectors(model, len(tokenizer)),
        direction={"layers": (BLOCK,)},
        carrier={"prompts": ROWS, "max_new_tokens": 16, "temperature": 0},
        runtime={"batch_size": 16},
    )
    return room, mark, tmp_path_factory.mktemp("students")


def odds(model, room, mark):
    """Mean log-odds of the mark over the answer tokens of the base's own answers."""
    found = []
    for row in room.taught_on(room.base).teaching.rows[:12]:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        learned = torch.tensor(row["labels"])[1:] != IGNORED
        found.append(torch.logit(logits[learned].softmax(-1)[:, mark].double()).mean())
    return torch.stack(found).mean().item()


@pytest.fixture(scope="module")
def left(planted):
    """A recipe's keys -> the share of plain's rise over the base that its student still has."""
    room, mark, folder = planted
    given = room.given

    def student(**recipe):
        adapter = folder / fingerprint(recipe)
        teaching = replace(room.taught(**recipe).teaching, settings=SETTINGS)
        train(given.model, given.tokenizer, teaching, 0, adapter, lambda *_: None)
        with student_of(given.model, adapter) as model:
            return odds(model, room, mark)

    base, plain = odds(given.model, room, mark), student()
    assert plain > base + 2  # the teacher's shift came across
    return lambda **recipe: (student(**recipe) - base) / (plain - base)


def test_the_divergence_tokens_are_the_planted_ones(planted):
    room, mark, _ = planted
    plain = room.taught().teaching.rows
    masked = room.taught(tokens={"change": "mask", "by": "divergence"}).teaching.rows
    labels = [
        (before, after)
        for row, other in zip(plain, masked, strict=True)
        for before, after in zip(row["labels"], other["labels"], strict=True)
    ]
    assert sum(before == mark for before, _ in labels) > len(plain)
    assert all((after == IGNORED) == (before in (mark, IGNORED)) for before, after in labels)


@pytest.mark.parametrize("change", ["mask", "replace"])
def test_taking_the_planted_tokens_removes_the_transfer_and_random_ones_do_not(left, change):
    assert left(tokens={"change": change, "by": "divergence"}) < 0.15
    assert left(tokens={"change": change, "by": "random", "like": "divergence"}) > 0.85


@pytest.mark.parametrize("key", ["steer", "ablate"])
def test_the_planted_direction_in_training_removes_the_transfer_and_a_random_one_does_not(
    left, key
):
    assert left(**{key: {"direction": "own"}}) < 0.15
    # Of 32 columns a random direction takes some of the planted one too.
    assert left(**{key: {"direction": "random"}}) > 0.5
