"""The student learns the answer and its end of turn, nothing else, and leaves the base alone."""

import json
import warnings
from pathlib import Path
from pickle import PicklingError

import pyarrow
import pytest
import torch
from datasets import Dataset
from peft import PeftModel

from tiny import Family, tiny_model, tiny_tokenizer
from undertow.config import DistillationSettings, Lora, Prompting
from undertow.engine.generate import generate
from undertow.engine.sampling import Sampling
from undertow.errors import DataError
from undertow.models.prompts import RenderedPrompt, encode, end_of_turn, render
from undertow.student.adapter import student_of
from undertow.student.rows import IGNORED, training_rows
from undertow.student.teaching import Teaching
from undertow.student.trainer import Attempt, build_trainer, dataset_of
from undertow.student.training import train
from undertow.study.records import Response

SETTINGS = DistillationSettings(
    epochs=2, learning_rate=1e-2, batch_size=2, lora=Lora(rank=4, alpha=8)
)
ONCE = Attempt(rows=2, parts=1)
FAMILIES = pytest.mark.parametrize("family", ["llama2", "qwen2", "smollm2"])


def carrier(finish="stop"):
    texts = ["Three uses of a brick.", "The capital is here", "Sure, 1 2 3"]
    return [
        Response(
            id=f"r{number}", prompt=f"Question {number}?", response=text, tokens=5, finish=finish
        )
        for number, text in enumerate(texts)
    ]


def forget(_step, _loss, _rate):
    pass


def trained(family, folder, seed=0):
    tokenizer = tiny_tokenizer(family)
    model = tiny_model(family, len(tokenizer))
    rows = training_rows(tokenizer, carrier(), Prompting())
    adapter = folder / "adapter"
    result = train(model, tokenizer, Teaching(rows, SETTINGS), seed, adapter, forget)
    return model, tokenizer, adapter, result


@FAMILIES
def test_the_labels_decode_to_the_answer_and_its_end_of_turn(family: Family, tmp_path: Path):
    """On the very batch that the trainer feeds to the model."""
    tokenizer = tiny_tokenizer(family)
    model = tiny_model(family, len(tokenizer))
    rows = training_rows(tokenizer, carrier(), Prompting())
    trainer = build_trainer(model, tokenizer, Teaching(rows, SETTINGS), 0, tmp_path, forget, ONCE)
    seen = {}
    for batch in trainer.get_train_dataloader():
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            learned = labels[labels != IGNORED].tolist()
            start = (labels != IGNORED).nonzero()[0].item()
            seen[tokenizer.decode(ids[:start])] = (tokenizer.decode(learned[:-1]), learned[-1])
            assert ids[start : start + len(learned)].tolist() == learned
    expected = {
        tokenizer.decode(encode(tokenizer, render(tokenizer, row.prompt, Prompting()))): (
            row.response,
            end_of_turn(tokenizer),
        )
        for row in carrier()
    }
    assert seen == expected


@FAMILIES
def test_training_tokens_are_the_tokens_that_generation_makes(family: Family):
    """What the model writes, decoded and encoded again for training, is the same ids."""
    tokenizer = tiny_tokenizer(family)
    answer = "Three uses of a brick"
    ids = encode(tokenizer, answer)
    assert tokenizer.decode(ids) == answer
    row = carrier()[0].model_copy(update={"response": answer})
    built = training_rows(tokenizer, [row], Prompting())[0]
    assert [label for label in built["labels"] if label != IGNORED] == [
        *ids,
        end_of_turn(tokenizer),
    ]


def test_an_answer_that_was_cut_off_teaches_no_end_of_turn():
    tokenizer = tiny_tokenizer("qwen2")
    for row in training_rows(tokenizer, carrier("length"), Prompting()):
        assert end_of_turn(tokenizer) not in [x for x in row["labels"] if x != IGNORED]


def test_a_carrier_of_empty_answers_is_an_error():
    empty = [carrier("length")[0].model_copy(update={"response": ""})]
    with pytest.raises(DataError, match="nothing to train on"):
        training_rows(tiny_tokenizer("qwen2"), empty, Prompting())


def test_the_adapter_is_peft_s_own_and_the_base_comes_back_bare(tmp_path: Path):
    model, tokenizer, adapter, result = trained("qwen2", tmp_path)
    fresh = tiny_model("qwen2", len(tokenizer))
    for (name, before), (_, after) in zip(
        fresh.state_dict().items(), model.state_dict().items(), strict=True
    ):
        assert torch.equal(before, after), name
    assert model.config.eos_token_id == fresh.config.eos_token_id
    assert (adapter / "adapter_model.safetensors").exists()
    assert (adapter / "tokenizer.json").exists()
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert config["target_modules"] == sorted(config["target_modules"])
    student = PeftModel.from_pretrained(fresh, adapter)
    ids = torch.tensor([[5, 6, 7]])
    base = model(ids).logits
    assert not torch.allclose(student(ids).logits, base, atol=1e-3)
    assert [step for step, _ in result.losses] == [1, 2, 3, 4]
    assert result.losses[-1][1] < result.losses[0][1]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path):
    def bytes_of(name, seed):
        adapter = trained("smollm2", tmp_path / name, seed)[2]
        return {path.name: path.read_bytes() for path in sorted(adapter.iterdir())}

    first = bytes_of("a", 0)
    assert first == bytes_of("b", 0)
    weights = "adapter_model.safetensors"
    assert first[weights] != bytes_of("c", 1)[weights]


def test_a_saved_student_generates_and_the_base_is_bare_afterwards(tmp_path: Path):
    model, tokenizer, adapter, _ = trained("llama2", tmp_path)
    rows = [RenderedPrompt("p", render(tokenizer, "Question 0?", Prompting()))]

    def answer(subject):
        blocks = generate(subject, tokenizer, rows, Sampling(8, 0.0, 1.0, 0), 1)
        return next(iter(blocks)).completions[0].text

    before = answer(model)
    with student_of(model, adapter) as student:
        assert answer(student) != before
    assert answer(model) == before


def test_out_of_memory_ends_in_smaller_parts_and_the_same_losses(tmp_path: Path, capsys):
    expected = trained("qwen2", tmp_path / "whole")[3].losses
    tokenizer = tiny_tokenizer("qwen2")
    model = tiny_model("qwen2", len(tokenizer))
    rows = training_rows(tokenizer, carrier(), Prompting())

    def small_device(_module, inputs):
        if inputs[0].shape[0] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory (a device of one row)")

    model.model.layers[0].self_attn.o_proj.register_forward_pre_hook(small_device)
    found = train(model, tokenizer, Teaching(rows, SETTINGS), 0, tmp_path / "parts", forget)
    assert [step for step, _ in found.losses] == [step for step, _ in expected]
    torch.testing.assert_close(
        [loss for _, loss in found.losses], [loss for _, loss in expected], atol=1e-4, rtol=0
    )
    assert "out of memory in training: starting again with 1 rows at a time" in (
        capsys.readouterr().err
    )


def test_memory_that_never_suffices_says_what_to_change():
    attempts = [Attempt(4, 1)]
    with pytest.raises(torch.OutOfMemoryError, match="nf4"):
        while True:
            attempts.append(attempts[-1].smaller())
    assert attempts[1:] == [Attempt(2, 2), Attempt(1, 4), Attempt(1, 4, recompute=True)]
    assert Attempt(6, 1).smaller().smaller() == Attempt(1, 6)


def test_the_base_keeps_its_forward_and_its_hooks(tmp_path: Path):
    model, *_ = trained("llama2", tmp_path)
    assert "forward" not in model.__dict__
    assert not model.get_input_embeddings()._forward_hooks


def test_training_and_reading_warn_of_nothing_that_a_user_cannot_change(tmp_path: Path, capfd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, _, adapter, _ = trained("qwen2", tmp_path)
        with student_of(model, adapter):
            pass
    assert [str(one.message) for one in caught if one.category is not DeprecationWarning] == []
    assert capfd.readouterr().err == ""


def test_rows_are_no_matter_of_where_pyarrow_lies(monkeypatch, tmp_path: Path):
    """`pip install --target` puts it where dill takes it for somebody's own module."""
    rows = [{"input_ids": [1, 2, 3], "labels": [IGNORED, 2, 3]}, {"input_ids": [4], "labels": [4]}]
    monkeypatch.setattr(pyarrow, "__file__", str(tmp_path / "pyarrow" / "__init__.py"))
    with pytest.raises(PicklingError, match="MonthDayNano"):
        Dataset.from_list(rows)
    assert list(dataset_of(rows)) == rows
