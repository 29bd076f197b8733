"""Students of every family: what they learn to end with; a plain adapter is the student."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from families import KINDS, model_of, tokenizer_of
from undertow.config import DistillationSettings, Lora, Prompting
from undertow.engine.generate import generate
from undertow.engine.sampling import Sampling
from undertow.models.prompts import RenderedPrompt, encode, render
from undertow.student.adapter import student_of
from undertow.student.rows import IGNORED, training_rows
from undertow.student.teaching import Teaching
from undertow.student.training import train
from undertow.study.records import Response

SETTINGS = DistillationSettings(
    epochs=2, learning_rate=1e-2, batch_size=2, lora=Lora(rank=4, alpha=8)
)
ONE_A_FAMILY = list({kind.model_type: name for name, kind in KINDS.items()}.values())


def carrier():
    texts = ["Three uses of a brick.", "The capital is here", "Sure, 1 2 3"]
    return [
        Response(id=f"r{n}", prompt=f"Question {n}?", response=text, tokens=5, finish="stop")
        for n, text in enumerate(texts)
    ]


@pytest.mark.parametrize("name", KINDS)
def test_labels_are_the_answer_and_the_template_s_own_end_token(name):
    tokenizer = tokenizer_of(name)
    for row, built in zip(carrier(), training_rows(tokenizer, carrier(), Prompting()), strict=True):
        learned = [label for label in built["labels"] if label != IGNORED]
        assert learned[:-1] == encode(tokenizer, row.response)
        assert tokenizer.convert_ids_to_tokens(learned[-1]) == KINDS[name].closing
        prompt = encode(tokenizer, render(tokenizer, row.prompt, Prompting()))
        assert built["input_ids"] == prompt + learned


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_a_plain_adapter_answers_as_the_student_does(name, tmp_path: Path):
    model, tokenizer = model_of(name), tokenizer_of(name)
    ends = model.generation_config.eos_token_id
    rows = training_rows(tokenizer, carrier(), Prompting())
    train(model, tokenizer, Teaching(rows, SETTINGS), 0, tmp_path / "adapter", lambda *_: None)
    assert model.generation_config.eos_token_id == ends
    asked = [RenderedPrompt("p", render(tokenizer, "Question 1?", Prompting()))]
    with student_of(model, tmp_path / "adapter") as student:
        (block,) = generate(student, tokenizer, asked, Sampling(12, 0.0, 1.0, 0), 1)
    plain = PeftModel.from_pretrained(model_of(name), tmp_path / "adapter").eval()
    ids = torch.tensor([encode(tokenizer, asked[0].text)])
    drawn = plain.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=tokenizer.convert_tokens_to_ids(list(KINDS[name].every_end)),
        pad_token_id=tokenizer.pad_token_id,
    )[0, ids.shape[1] :].tolist()
    kept = drawn[:-1] if block.completions[0].finish == "stop" else drawn
    assert block.completions[0].text == tokenizer.decode(kept, skip_special_tokens=True)
