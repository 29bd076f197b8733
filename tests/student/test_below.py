"""Blocks below the lowest adapter are the base's: each row goes through them once, and no loss,
no adapter and no model tells the difference.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from test_together import SETTINGS, assert_same_losses, carrier, forget, together

import families
from undertow.errors import ConfigError
from undertow.models.blocks import blocks
from undertow.student.adapter import check_adapted, without_renamings
from undertow.student.shift import shifting
from undertow.student.teaching import KlToBase, Teaching
from undertow.student.together import Student
from undertow.student.trainer import Attempt, build_trainer
from undertow.student.training import train

LORA = SETTINGS.lora.model_copy(update={"adapted_from": 2})
UPPER = SETTINGS.model_copy(update={"lora": LORA, "gradient_accumulation": 2})
FAMILIES = ("qwen3", "qwen2-window", "gemma3", "granite", "smollm3")


def model_of(name: str):
    return families.model_of(name).requires_grad_(False), families.tokenizer_of(name)


def by_whole_passes(model, tokenizer, teaching: Teaching, folder: Path) -> list[tuple[int, float]]:
    """TRL's losses where every step goes through all blocks."""
    attempt = Attempt(teaching.settings.batch_size, 1)
    with without_renamings(), shifting(model, teaching) as switch:
        trainer = build_trainer(model, tokenizer, teaching, 0, folder, forget, attempt, switch)
        trainer.train()
    trainer.model.unload()
    return trainer.losses


def rows_through(block, work) -> int:
    """How many rows a block is given while `work` runs."""
    counted = []
    hook = block.mlp.register_forward_pre_hook(lambda _m, given: counted.append(len(given[0])))
    work()
    hook.remove()
    return sum(counted)


@pytest.mark.parametrize("name", FAMILIES)
def test_losses_are_those_of_whole_passes_and_rows_are_read_once(name: str, tmp_path: Path):
    model, tokenizer = model_of(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    teaching = Teaching(carrier(7, 0, 300), UPPER)
    made = []
    lower = rows_through(
        blocks(model)[0],
        lambda: made.append(train(model, tokenizer, teaching, 0, tmp_path / "a", forget)),
    )
    assert lower == 7
    assert_same_losses(made[0].losses, by_whole_passes(model, tokenizer, teaching, tmp_path / "t"))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any("forward" in vars(block) for block in blocks(model))


def test_the_adapter_has_upper_blocks_alone_and_plain_peft_loads_it(tmp_path: Path):
    model, tokenizer = model_of("qwen3")
    train(model, tokenizer, Teaching(carrier(7, 0, 300), UPPER), 0, tmp_path / "a", forget)
    names = load_file(tmp_path / "a" / "adapter_model.safetensors").keys()
    assert {name.split(".layers.")[1].split(".")[0] for name in names} == {"2"}
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        base = model(ids).logits
        changed = PeftModel.from_pretrained(model, str(tmp_path / "a"))(ids).logits
    assert (changed - base).abs().max() > 1e-3


def test_a_block_that_is_not_there_is_said_before_training():
    model, _ = model_of("qwen3")
    check_adapted(model, LORA)
    with pytest.raises(ConfigError, match="blocks 0 to 2"):
        check_adapted(model, LORA.model_copy(update={"adapted_from": 3}))


@pytest.mark.parametrize("block", [0, 2])
def test_where_training_shifts_a_block_its_rows_are_shifted(block: int, tmp_path: Path):
    """Below the adapters the shift is part of every pass, which then goes through all blocks."""
    model, tokenizer = model_of("qwen3")
    shift = torch.full((model.config.hidden_size,), 0.5)
    teaching = Teaching(carrier(7, 0, 300), UPPER, offset={block: shift}, kl=KlToBase(0.5))
    losses = train(model, tokenizer, teaching, 0, tmp_path / "a", forget).losses
    assert_same_losses(losses, by_whole_passes(model, tokenizer, teaching, tmp_path / "t"))
    plain = replace(teaching, offset={})
    assert losses != train(model, tokenizer, plain, 0, tmp_path / "b", forget).losses


@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
def test_students_of_a_group_learn_as_with_trl(name: str, tmp_path: Path):
    model, tokenizer = model_of(name)
    shift = torch.full((model.config.hidden_size,), 0.5)
    plain = Teaching(carrier(7, 0, 300), UPPER)
    taught = [plain, replace(plain, offset={0: shift}), replace(plain, kl=KlToBase(0.5))]
    students = [
        Student(one, 0, tmp_path / str(number), forget) for number, one in enumerate(taught)
    ]
    for number, one in enumerate(together(model, tokenizer, students)):
        expected = train(model, tokenizer, taught[number], 0, tmp_path / f"trl{number}", forget)
        assert_same_losses(one.losses, expected.losses)
        ours, theirs = (
            load_file(folder / "adapter_model.safetensors")
            for folder in (tmp_path / str(number), tmp_path / f"trl{number}")
        )
        assert ours.keys() == theirs.keys()
        for key in ours:
            torch.testing.assert_close(ours[key], theirs[key], atol=1e-3, rtol=1e-2)
