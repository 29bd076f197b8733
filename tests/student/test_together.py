"""Students trained together are those that TRL trains one by one, whoever stands beside them."""

from pathlib import Path

import pytest
import torch

from tiny import tiny_model, tiny_tokenizer
from undertow.config import DistillationSettings, Lora
from undertow.student.rows import IGNORED
from undertow.student.together import Student, Together
from undertow.student.training import train

FAMILIES = pytest.mark.parametrize("family", ["llama2", "qwen2"])
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
    ),
]
STEEP = 30.0  # of the loss: large gradients, so that clipping is at work
SETTINGS = DistillationSettings(
    epochs=2,
    learning_rate=1e-2,
    batch_size=4,
    weight_decay=0.1,
    warmup_ratio=0.2,
    schedule="cosine",
    lora=Lora(rank=4, alpha=8),
)


def carrier(count: int, seed: int, vocabulary: int, *, repeat: bool = False) -> list[dict]:
    """Rows of 8 to 60 tokens, learned from the fifth on; repeat: one token over and over, which
    a random model finds so unlikely that the gradient is clipped.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        length = int(torch.randint(8, 60, (1,), generator=generator))
        ids = torch.randint(5, vocabulary, (length,), generator=generator).tolist()
        if repeat:
            ids = ids[:4] + [7] * (length - 4)
        rows.append({"input_ids": ids, "labels": [IGNORED] * 4 + ids[4:]})
    return rows


def model_of(family: str):
    tokenizer = tiny_tokenizer(family)
    return tiny_model(family, len(tokenizer)).requires_grad_(False), tokenizer


def forget(_step, _loss, _rate):
    pass


def three(vocabulary: int, folder: Path) -> list[Student]:
    """Of different carriers, seeds and numbers of rows."""
    return [
        Student(
            carrier(count, seed, vocabulary, repeat=seed == 2), seed, folder / str(seed), forget
        )
        for count, seed in ((10, 0), (7, 1), (16, 2))
    ]


def together(model, tokenizer, students, settings=SETTINGS, size=None, run=None):
    trainer = Together(
        model,
        tokenizer,
        settings,
        run or [(student.rows, student.seed) for student in students],
        size=size or len(students),
    )
    return [one for group in trainer.train(students) for one in group]


def reference(model, tokenizer, student: Student, folder: Path, settings=SETTINGS):
    return train(
        model, tokenizer, student.rows, settings, student.seed, folder, student.on_loss
    ).losses


def assert_same_losses(found, expected):
    assert [step for step, _ in found] == [step for step, _ in expected]
    torch.testing.assert_close(
        [loss for _, loss in found], [loss for _, loss in expected], atol=1e-5, rtol=0
    )


@FAMILIES
def test_every_step_s_loss_is_trl_s_alone_and_in_company(family: str, tmp_path: Path):
    model, tokenizer = model_of(family)
    students = three(len(tokenizer), tmp_path / "ours")
    in_company = together(model, tokenizer, students)
    for number, student in enumerate(students):
        expected = reference(model, tokenizer, student, tmp_path / "trl" / str(number))
        (alone,) = together(
            model, tokenizer, [student._replace(adapter=tmp_path / "alone" / str(number))]
        )
        assert_same_losses(alone.losses, expected)
        assert_same_losses(in_company[number].losses, expected)
