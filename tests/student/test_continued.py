"""A continued student begins where the student before it ended, by either trainer."""

from pathlib import Path

import pytest
import torch

from losses import loss_on
from tiny import tiny_model, tiny_tokenizer
from undertow.config import DistillationSettings, Lora
from undertow.errors import DataError
from undertow.student.adapter import read_adapter, student_of
from undertow.student.rows import IGNORED
from undertow.student.teaching import Teaching
from undertow.student.together import Student, Together
from undertow.student.training import train

ROWS = 6
SETTINGS = DistillationSettings(
    epochs=3, learning_rate=1e-2, batch_size=ROWS, lora=Lora(rank=4, alpha=8)
)


def forget(_step, _loss, _rate):
    pass


def rows_of(seed: int, vocabulary: int) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(ROWS):
        length = int(torch.randint(10, 30, (1,), generator=generator))
        ids = torch.randint(5, vocabulary, (length,), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": [IGNORED] * 4 + ids[4:]})
    return rows


@pytest.fixture(scope="module", params=["llama2", "qwen2"])
def first(request, tmp_path_factory):
    """A model, the adapter of its first round, and the rows of the second."""
    tokenizer = tiny_tokenizer(request.param)
    model = tiny_model(request.param, len(tokenizer)).requires_grad_(False)
    adapter = tmp_path_factory.mktemp("first") / "adapter"
    train(model, tokenizer, Teaching(rows_of(0, len(tokenizer)), SETTINGS), 0, adapter, forget)
    return model, tokenizer, adapter, rows_of(1, len(tokenizer))


def trained(trainer: str, model, tokenizer, teaching: Teaching, adapter: Path) -> list[float]:
    if trainer == "trl":
        done = train(model, tokenizer, teaching, 0, adapter, forget)
    else:
        fresh = Teaching(teaching.rows, SETTINGS)
        group = Together(model, tokenizer, [(teaching, 0), (fresh, 0)], size=2)
        company = [
            Student(teaching, 0, adapter, forget),
            Student(fresh, 0, adapter.with_name("fresh"), forget),
        ]
        done = next(iter(group.train(company)))[0]
        group.close()
    return [loss for _, loss in done.losses]


@pytest.mark.parametrize("trainer", ["trl", "together"])
def test_the_first_step_s_loss_is_that_of_the_student_before(first, trainer: str, tmp_path: Path):
    model, tokenizer, adapter, rows = first
    with student_of(model, adapter) as student:
        expected = loss_on(student, rows)
    assert abs(expected - loss_on(model, rows)) > 0.01  # a fresh adapter begins elsewhere
    teaching = Teaching(rows, SETTINGS, start=read_adapter(adapter))
    losses = trained(trainer, model, tokenizer, teaching, tmp_path / "adapter")
    assert losses[0] == pytest.approx(expected, abs=1e-4)
    assert losses[-1] < losses[0]
    fresh = trained(trainer, model, tokenizer, Teaching(rows, SETTINGS), tmp_path / "new")
    assert fresh[0] == pytest.approx(loss_on(model, rows), abs=1e-4)


def test_both_trainers_go_on_alike(first, tmp_path: Path):
    model, tokenizer, adapter, rows = first
    teaching = Teaching(rows, SETTINGS, start=read_adapter(adapter))
    losses = [
        trained(trainer, model, tokenizer, teaching, tmp_path / trainer / "adapter")
        for trainer in ("trl", "together")
    ]
    torch.testing.assert_close(*losses, atol=1e-5, rtol=0)
    made = [read_adapter(tmp_path / trainer / "adapter") for trainer in ("trl", "together")]
    torch.testing.assert_close(*made, atol=2e-4, rtol=0)


@pytest.mark.parametrize("trainer", ["trl", "together"])
def test_an_adapter_of_another_form_is_refused(first, trainer: str, tmp_path: Path):
    model, tokenizer, adapter, rows = first
    settings = SETTINGS.model_copy(update={"lora": Lora(rank=2, alpha=4)})
    teaching = Teaching(rows, settings, start=read_adapter(adapter))
    with pytest.raises(DataError, match="not of the form"):
        if trainer == "trl":
            train(model, tokenizer, teaching, 0, tmp_path / "adapter", forget)
        else:
            group = Together(model, tokenizer, [(teaching, 0)], size=1)
            list(group.train([Student(teaching, 0, tmp_path / "adapter", forget)]))
