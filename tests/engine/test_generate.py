"""Generation depends on seed and prompt, not on batches, order or interruptions."""

from collections import Counter
from functools import wraps

import pytest
import torch

from tiny import Family, tiny_model, tiny_tokenizer
from undertow.config import Prompting
from undertow.engine.by_lanes import generate_by_lanes
from undertow.engine.generate import generate
from undertow.engine.sampling import Asking, Sampling, draw, uniform_numbers
from undertow.models.memory import free_memory, halving
from undertow.models.prompts import RenderedPrompt, encode, end_of_turn, render

GREEDY = Sampling(12, 0.0, 1.0, 0)
SAMPLED = Sampling(12, 1.0, 0.9, 3)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=["llama2", "qwen2", "smollm2"])
def pair(request: pytest.FixtureRequest):
    family: Family = request.param
    tokenizer = tiny_tokenizer(family)
    tokenizer.padding_side = "left"
    return tiny_model(family, len(tokenizer)), tokenizer


def prompts(tokenizer, count=7):
    texts = [f"List {number} things{' and more' * number}" for number in range(count)]
    return [
        RenderedPrompt(f"p{number}", render(tokenizer, text, Prompting()))
        for number, text in enumerate(texts)
    ]


def answers(model, tokenizer, rows, sampling, size):
    return {
        row.id: (row.text, row.tokens, row.finish)
        for block in generate(model, tokenizer, rows, sampling, size)
        for row in block.completions
    }


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_row_does_not_depend_on_its_batch(pair, sampling):
    model, tokenizer = pair
    rows = prompts(tokenizer)
    together = answers(model, tokenizer, rows, sampling, 7)
    assert together == answers(model, tokenizer, rows, sampling, 2)
    assert together == answers(model, tokenizer, rows[::-1], sampling, 3)


def test_sampling_depends_on_the_seed(pair):
    model, tokenizer = pair
    rows = prompts(tokenizer)
    other = SAMPLED._replace(seed=4)
    assert answers(model, tokenizer, rows, SAMPLED, 7) != answers(model, tokenizer, rows, other, 7)


def test_greedy_equals_plain_generate(pair):
    model, tokenizer = pair
    row = prompts(tokenizer, 1)[0]
    ids = torch.tensor([encode(tokenizer, row.text)])
    stop = end_of_turn(tokenizer)
    plain = model.generate(
        ids, max_new_tokens=12, do_sample=False, eos_token_id=stop, pad_token_id=stop
    )[0, ids.shape[1] :].tolist()
    kept = plain[: plain.index(stop)] if stop in plain else plain
    expected = tokenizer.decode(kept, skip_special_tokens=True)
    assert answers(model, tokenizer, [row], GREEDY, 1)["p0"][0] == expected


def test_a_finished_answer_stops_at_the_end_of_turn_and_says_so(pair):
    model, tokenizer = pair
    stop = end_of_turn(tokenizer)
    with torch.no_grad():
        model.lm_head.weight.copy_(torch.zeros_like(model.lm_head.weight))
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(model.config.vocab_size))
        model.lm_head.bias[stop] = 9.0
    found = answers(model, tokenizer, prompts(tokenizer, 2), GREEDY, 2)
    assert set(found.values()) == {("", 0, "stop")}


def test_what_was_done_earlier_does_not_change_the_rest(pair):
    model, tokenizer = pair
    rows = prompts(tokenizer)
    whole = answers(model, tokenizer, rows, SAMPLED, 3)
    done = {"p6", "p5", "p4", "p1"}
    rest = [
        row.id
        for block in generate(model, tokenizer, rows, SAMPLED, 3, done)
        for row in block.completions
    ]
    assert sorted(rest) == ["p0", "p2", "p3"]
    assert {id: whole[id] for id in rest} == {
        row.id: (row.text, row.tokens, row.finish)
        for block in generate(model, tokenizer, rows, SAMPLED, 3, done)
        for row in block.completions
    }


def drawn(
    logits: torch.Tensor, count: int, sampling: Sampling, device: str = "cpu"
) -> torch.Tensor:
    uniform = torch.stack([uniform_numbers(str(row), sampling) for row in range(count)])
    return draw(logits.repeat(count, 1).to(device), uniform[:, 0], sampling).cpu()


@pytest.mark.parametrize("device", DEVICES)
def test_draws_follow_the_distribution(device: str):
    """Frequencies against softmax, on a vocabulary of more than one stretch."""
    logits = torch.full((1500,), -30.0)
    logits[[3, 511, 512, 1499]] = torch.tensor([2.0, 1.0, 0.0, -1.0])
    for count, temperature in ((4000, 1.0), (3000, 2.0)):
        tokens = drawn(logits, count, Sampling(1, temperature, 1.0, 0), device)
        found = torch.bincount(tokens, minlength=1500) / count
        expected = (logits / temperature).softmax(-1)
        torch.testing.assert_close(found, expected, atol=0.03, rtol=0)
    assert set(drawn(logits, 1000, Sampling(1, 1.0, 0.5, 0), device).tolist()) == {3}


@pytest.mark.parametrize("device", DEVICES)
def test_a_draw_between_two_stretches_has_mass(device: str):
    """Here the first stretch's sum, taken from the whole, rounds to above the target."""
    for seed, level, uniform in ((1, 7.5, 0.3158529996871948), (2, 4.7, 0.8871909379959106)):
        logits = torch.full((1, 1024), -torch.inf)
        logits[0, :512] = torch.randn(512, generator=torch.Generator().manual_seed(seed))
        logits[0, 513] = level
        token = draw(logits.to(device), torch.tensor([uniform]), Sampling(1, 1.0, 1.0, 0))
        assert logits[0, token.item()] > -torch.inf


def test_nothing_to_do_is_done_at_once(pair):
    model, tokenizer = pair
    assert answers(model, tokenizer, [], GREEDY, 2) == {}
    rows = prompts(tokenizer, 2)
    assert list(generate(model, tokenizer, rows, GREEDY, 2, {"p0", "p1"})) == []


def test_a_draw_never_leaves_the_nucleus():
    """At the largest uniform number, where the sums round differently."""
    logits = torch.randn(200, 3000, generator=torch.Generator().manual_seed(0)) * 4
    largest = torch.full((200,), 1 - 2**-24)
    tokens = draw(logits, largest, Sampling(1, 1.0, 0.8, 0))
    mass, order = logits.softmax(-1).sort(dim=-1, descending=True)
    before = mass.cumsum(-1) - mass
    rank = (order == tokens[:, None]).long().argmax(dim=-1, keepdim=True)
    assert (before.gather(1, rank) < 0.8 + 1e-5).all()


def test_a_draw_at_the_very_end_still_has_mass():
    logits = torch.full((1, 1000), -torch.inf)
    logits[0, 7] = 0.0
    for uniform in (0.0, 0.5, 1.0 - 2**-24):
        token = draw(logits, torch.tensor([uniform]), Sampling(1, 1.0, 1.0, 0))
        assert token.tolist() == [7]


def test_out_of_memory_ends_in_halves_with_the_same_answer(pair, capsys):
    model, tokenizer = pair
    rows = prompts(tokenizer)
    whole = answers(model, tokenizer, rows, SAMPLED, 7)
    forward, sizes = model.forward, []

    @wraps(forward)  # transformers looks for position_ids among its arguments
    def small_device(*args, **kwargs):
        size = kwargs["input_ids"].shape[0]
        sizes.append(size)
        if size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory (a device of two rows)")
        return forward(*args, **kwargs)

    model.forward = small_device
    assert answers(model, tokenizer, rows, SAMPLED, 7) == whole
    assert max(sizes) == 7
    assert "out of memory at 7 rows" in capsys.readouterr().err


@pytest.mark.parametrize("fine", [0, 9], ids=["at once", "on the way"])
def test_out_of_memory_in_the_engine_ends_in_fewer_rows_with_the_same_answer(pair, capsys, fine):
    model, tokenizer = pair
    rows = prompts(tokenizer)
    whole = answers(model, tokenizer, rows, SAMPLED, 7)
    steps = Counter()

    def small_device(_module, inputs):
        lanes = inputs[0].shape[0]
        steps[lanes] += 1
        if lanes > 2 and steps[lanes] > fine:
            raise torch.OutOfMemoryError("CUDA out of memory (a device of two rows)")

    model.lm_head.register_forward_pre_hook(small_device)
    found = {
        row.id: (row.text, row.tokens, row.finish)
        for block in generate_by_lanes(model, tokenizer, rows, [Asking(SAMPLED, {"p3"})], 7)
        for row in block.completions[0]
    }
    assert found == {id: answer for id, answer in whole.items() if id != "p3"}
    assert "out of memory at 4 rows: going on with 2" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU's memory is filled")
@pytest.mark.parametrize("family", ["llama2", "qwen2"])
def test_a_full_gpu_ends_in_fewer_rows_with_the_same_answer(family: Family, capsys):
    tokenizer = tiny_tokenizer(family)
    model = tiny_model(family, len(tokenizer), blocks=8, hidden=256).cuda()
    sampling = GREEDY._replace(max_new_tokens=300)  # a slot takes 3 MiB
    rows = prompts(tokenizer, 60)
    whole = answers(model, tokenizer, rows, sampling, 60)
    assert not capsys.readouterr().err
    free_memory()
    room = torch.cuda.memory_reserved() + 150 * 2**20
    torch.cuda.set_per_process_memory_fraction(
        room / torch.cuda.get_device_properties(0).total_memory
    )
    try:
        assert answers(model, tokenizer, rows, sampling, 60) == whole
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory at 60 rows: going on with 30" in capsys.readouterr().err


def test_one_row_that_does_not_fit_raises_the_device_s_error():
    def never(_rows):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        halving([1, 2, 3], never)
