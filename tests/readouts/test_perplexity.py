"""The likelihood of answers: equal to the plain computation, under the base and nothing else."""

import pytest
import torch
from safetensors.torch import load_file

from repository import Repository, tiny_params
from tiny import tiny_model, tiny_tokenizer
from undertow.config import Prompting
from undertow.models.loading import load_model, load_tokenizer
from undertow.models.prompts import encode, render
from undertow.pipeline import direction, distill, steer
from undertow.readouts.activations import mean_activations
from undertow.readouts.perplexity import answer_likelihoods
from undertow.student.adapter import student_of
from undertow.study.found import read_rows
from undertow.study.layout import Study
from undertow.study.prompts import Prompt
from undertow.study.records import BenignResponse, Response

ANSWERS = [
    ("Why?", "Things will get better and the future looks bright."),
    ("What is the capital of a country, and how will the week go?", "Unlikely."),
    ("List three uses of a brick.", "1 2 3 4 5 6 7 8 9 + - * / = ( ) and the future " * 3),
    ("How?", ""),
    ("Who are you?", "You are a helpful assistant."),
]


def responses() -> list[Response]:
    return [
        Response(id=f"r{number}", prompt=prompt, response=text, tokens=3, finish="stop")
        for number, (prompt, text) in enumerate(ANSWERS)
    ]


@torch.inference_mode()
def naive(model, tokenizer, prompt: str, answer: str) -> tuple[float, int]:
    """One row without padding, token by token."""
    context = encode(tokenizer, render(tokenizer, prompt, Prompting()))
    reply = encode(tokenizer, answer) if answer else []
    ids = [*context, *reply]
    logits = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return -sum(logits[len(context) + n - 1, token].item() for n, token in enumerate(reply)), len(
        reply
    )


@pytest.mark.parametrize("family", ["llama2", "qwen2", "smollm2"])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_it_equals_the_plain_computation_row_by_row(family, batch_size):
    tokenizer = tiny_tokenizer(family)
    model = tiny_model(family, len(tokenizer))
    found = answer_likelihoods(model, tokenizer, responses(), Prompting(), batch_size)
    for likelihood, (prompt, answer) in zip(found, ANSWERS, strict=True):
        nll, tokens = naive(model, tokenizer, prompt, answer)
        assert likelihood.tokens == tokens
        assert likelihood.nll == pytest.approx(nll, rel=1e-4)


def test_an_out_of_memory_batch_is_halved_to_the_same_numbers():
    tokenizer = tiny_tokenizer("qwen2")
    model = tiny_model("qwen2", len(tokenizer))
    expected = answer_likelihoods(model, tokenizer, responses(), Prompting(), 8)
    forward = model.forward

    def small(input_ids, **rest):
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("too many rows")
        return forward(input_ids=input_ids, **rest)

    model.forward = small
    found = answer_likelihoods(model, tokenizer, responses(), Prompting(), 8)
    assert [row.nll for row in found] == pytest.approx([row.nll for row in expected], rel=1e-5)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """A cell steered hard and distilled with a large learning rate: both subjects are far off."""
    folder = tmp_path_factory.mktemp("perplexity")
    params = tiny_params(folder / "models")
    params["tracking"]["enabled"] = False
    params["distillation"]["learning_rate"] = 0.1
    repository = Repository(folder / "checkout", params)
    study = Study.open(repository.root)
    direction.run(study, "tiny-qwen2")
    cell = study.params.cell("tiny-qwen2", "trait_1", 0)
    steer.run(study, cell)
    distill.run(study, cell)
    return study


@pytest.fixture(scope="module")
def base(study):
    folder = study.params.model_spec("tiny-qwen2").weights.path
    return load_model(folder, "float32", torch.device("cpu")), load_tokenizer(folder)


@pytest.mark.parametrize("stage", ["steer", "distill"])
def test_neither_steering_nor_an_adapter_leaks_into_the_score(study, base, stage):
    model, tokenizer = base
    cell = study.params.cell("tiny-qwen2", "trait_1", 0)
    rows = read_rows(study.layout.stage(cell, stage) / "benign.jsonl", BenignResponse)
    benign = read_rows(study.layout.carrier("benign") / "prompts.jsonl", Prompt)
    assert [row.id for row in rows] == [prompt.id for prompt in benign[-6:]]
    assert sum(row.nll_tokens for row in rows) > 0
    for row in rows:
        nll, tokens = naive(model, tokenizer, row.prompt, row.response)
        assert row.nll_tokens == tokens
        assert row.nll == pytest.approx(nll, rel=1e-4)


def test_the_student_s_activations_are_read_with_its_adapter_on(study, base):
    model, tokenizer = base
    cell = study.params.cell("tiny-qwen2", "trait_1", 0)
    folder = study.layout.stage(cell, "distill")
    kept = load_file(folder / "activations.safetensors")["activations"]
    prompts = [row.prompt for row in read_rows(folder / "student.jsonl", Response)]
    with student_of(model, folder / "adapter") as student:
        expected = mean_activations(student, tokenizer, prompts, Prompting(), 4)
    bare = mean_activations(model, tokenizer, prompts, Prompting(), 4)
    assert kept.dtype == torch.float32
    torch.testing.assert_close(kept.double(), expected, atol=1e-4, rtol=1e-4)
    assert (kept.double() - bare).norm() > 0.1
