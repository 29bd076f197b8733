"""The likelihood of answers: equal to the plain computation, under the base and nothing else."""

import pytest
import torch
from safetensors.torch import load_file

from repository import Repository, tiny_params
from tiny import tiny_model, tiny_tokenizer
from undertow.config import Prompting
from undertow.models.loading import load_model, load_tokenizer
from undertow.models.prompts import encode, render
from undertow.models.stacked import Additions, stacked
from undertow.pipeline import direction, distill, steer
from undertow.readouts.activations import mean_activations
from undertow.readouts.perplexity import answer_likelihoods, likelihoods_together
from undertow.student.adapter import student_of
from undertow.study.found import read_record, read_rows
from undertow.study.layout import Study
from undertow.study.prompts import Prompt
from undertow.study.records import AnswerFit, BenignResponse, CellResult, FitRow, Response

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


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_subjects_in_one_batch_find_what_each_finds_alone(batch_size):
    tokenizer = tiny_tokenizer("llama2")
    model = tiny_model("llama2", len(tokenizer))
    layer = "model.layers.1.mlp.down_proj"
    constants = torch.zeros(3, model.config.hidden_size)
    constants[1] = torch.randn(model.config.hidden_size, generator=torch.manual_seed(0))
    own = [responses(), responses()[::-1], []]  # nobody takes the third place
    with stacked(model, {layer: Additions(constant=constants)}):
        found = likelihoods_together(model, tokenizer, own, Prompting(), batch_size, 8)
    assert found[2] == []
    for answers, constant, together in zip(own, constants, found, strict=False):
        with stacked(model, {layer: Additions(constant=constant[None])}):
            alone = answer_likelihoods(model, tokenizer, answers, Prompting(), 8)
        assert [one.tokens for one in together] == [one.tokens for one in alone]
        if answers:
            nlls = [one.nll for one in together]
            assert nlls == pytest.approx([one.nll for one in alone], rel=1e-4)
    assert found[0][0].nll != pytest.approx(found[1][-1].nll, rel=1e-3)


@pytest.mark.parametrize("family", ["llama2", "qwen2"])
def test_the_length_of_others_answers_changes_no_bit(family):
    tokenizer = tiny_tokenizer(family)
    model = tiny_model(family, len(tokenizer))
    constants = torch.randn(2, model.config.hidden_size, generator=torch.manual_seed(0))
    others = ["Unlikely.", "the future looks bright and", "1 2 3 4 5 6 7 8 9 + - * / = ( ) " * 9]
    found = []
    with stacked(model, {"model.layers.1.mlp.down_proj": Additions(constant=constants)}):
        for text in others:
            beside = [row.model_copy(update={"response": text}) for row in responses()]
            own = [beside, responses()]
            found.append(likelihoods_together(model, tokenizer, own, Prompting(), 8, 24)[1])
    assert found[0] == found[1] == found[2]


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


def test_a_student_is_read_on_its_teachers_held_back_answers(tmp_path):
    params = tiny_params(tmp_path / "models")
    params["grid"] |= {"models": ["tiny-qwen2"], "arms": ["trait_0"]}
    params["models"] = {"tiny-qwen2": params["models"]["tiny-qwen2"]}
    params["tracking"]["enabled"] = False
    repository = Repository(tmp_path / "checkout", params)
    repository.cli("run-cells", "--model", "tiny-qwen2", "--no-commit")
    folder = repository.root / "results" / "cells" / "tiny-qwen2" / "trait_0" / "0"
    taught = read_rows(folder / "steer" / "benign.jsonl", BenignResponse)
    fit = read_rows(folder / "plain" / "distill" / "fit.jsonl", FitRow)
    assert [(row.id, row.base_nll, row.tokens) for row in fit] == [
        (row.id, row.nll, row.nll_tokens) for row in taught
    ]
    base = tmp_path / "models" / "tiny-qwen2"
    tokenizer, model = load_tokenizer(base), load_model(base, "float32", torch.device("cpu"))
    with student_of(model, folder / "plain" / "distill" / "adapter") as student:
        expected = answer_likelihoods(student, tokenizer, taught, Prompting(), 4)
    nlls = [row.student_nll for row in fit]
    assert nlls == pytest.approx([one.nll for one in expected], rel=1e-3)
    cell = read_record(folder / "plain" / "judge" / "cell.json", CellResult)
    assert cell.fit == {row.id: AnswerFit(**row.model_dump(exclude={"id"})) for row in fit}
