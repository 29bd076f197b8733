"""Every family's answers: those of transformers' generate with a hook, to the first end token."""

from contextlib import contextmanager
from itertools import count

import pytest
import torch

from families import KINDS, model_of, tokenizer_of
from undertow.config import Prompting
from undertow.engine.answers import Block, completion
from undertow.engine.by_lanes import generate_by_lanes
from undertow.engine.decode import unsupported
from undertow.engine.generate import generate
from undertow.engine.sampling import Asking, Sampling
from undertow.errors import UndertowError
from undertow.models.prompts import Ends, RenderedPrompt, encode, ends_of, render
from undertow.readouts.margin import margins
from undertow.study.traits import Openings
from undertow.teacher.steering import steer, steer_with_hooks

EVERY = pytest.mark.parametrize("name", KINDS)
GREEDY = Sampling(24, 0.0, 1.0, 0)
PROMPTS = ("How will the week go?", "List three uses of a brick.")


def rows(tokenizer):
    return [
        RenderedPrompt(f"p{number}", render(tokenizer, text, Prompting()))
        for number, text in enumerate(PROMPTS)
    ]


def answers(blocks):
    return {row.id: row for block in blocks for row in block.completions}


def paths(model, tokenizer):
    """The engine, which computes the same on a CPU, and `generate`, which a CPU takes."""
    assert unsupported(model) is None
    yield generate(model, tokenizer, rows(tokenizer), GREEDY, 2)
    shared = generate_by_lanes(model, tokenizer, rows(tokenizer), [Asking(GREEDY)], 2)
    yield (Block(block.completions[0], block.seconds) for block in shared)


@EVERY
def test_greedy_tokens_are_those_of_generate_with_a_hook_and_all_end_tokens(name):
    model, tokenizer = model_of(name), tokenizer_of(name)
    added = {1: torch.linspace(-1, 1, 32)}
    expected = {}
    kind = KINDS[name]
    ends = tokenizer.convert_tokens_to_ids(list(kind.every_end))
    with steer_with_hooks(model, added), torch.inference_mode():
        for row in rows(tokenizer):
            ids = torch.tensor([encode(tokenizer, row.text)])
            drawn = model.generate(
                ids,
                max_new_tokens=24,
                do_sample=False,
                eos_token_id=ends,
                pad_token_id=tokenizer.pad_token_id,
            )[0, ids.shape[1] :].tolist()
            stopped = drawn[-1] in ends
            kept = drawn[:-1] if stopped else drawn
            text = tokenizer.decode(kept, skip_special_tokens=True)
            expected[row.id] = (text, len(kept), "stop" if stopped else "length")
    before = model.generation_config
    with steer(model, added):
        for blocks in paths(model, tokenizer):
            found = answers(blocks)
            assert {id: row[1:4] for id, row in found.items()} == expected
    assert model.generation_config is before


@EVERY
def test_each_end_token_ends_an_answer_and_is_named(name):
    tokenizer = tokenizer_of(name)
    for end in KINDS[name].every_end:
        model = model_of(name)
        for blocks in paths(model, tokenizer):
            with drawing(model, tokenizer, end, after=3):
                for row in answers(blocks).values():
                    assert (row.finish, row.end, row.tokens) == ("stop", end, 3)
                    assert row.text.strip() == "aaa"


@contextmanager
def drawing(model, tokenizer, end, after):
    """The model draws an ordinary token `after` times and then `end`, whatever it is asked."""
    word, stop = encode(tokenizer, "a")[-1], tokenizer.convert_tokens_to_ids(end)
    steps = count()

    def force(_module, _inputs, logits):
        forced = torch.full_like(logits, -100.0)
        forced[..., stop if next(steps) == after else word] = 100.0
        return forced

    handle = model.lm_head.register_forward_hook(force)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("name", ["qwen3", "smollm3", "llama2"])
def test_a_think_block_is_cut_and_said(name):
    tokenizer = tokenizer_of(name)
    closing = tokenizer.convert_tokens_to_ids(KINDS[name].closing)
    ends = Ends(closing, frozenset({closing}))

    def answer(text):
        return completion(tokenizer, "p", [*encode(tokenizer, text), closing], ends)

    thought = answer("<think>\nIs it so?\n</think>\n\nYes, it is.")
    assert (thought.text.strip(), thought.thought) == ("Yes, it is.", True)
    open_ended = answer("<think>\nIs it so? I wonder")
    assert (open_ended.text.strip(), open_ended.thought) == ("", True)
    plain = answer("I think it is.")
    assert (plain.text.strip(), plain.thought) == ("I think it is.", False)


def test_a_think_block_between_special_tokens_is_cut_too():
    tokenizer = tokenizer_of("qwen2.5")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    closing = tokenizer.eos_token_id
    ids = encode(tokenizer, "<think>why?</think>Because.")
    found = completion(tokenizer, "p", [*ids, closing], Ends(closing, frozenset({closing})))
    assert (found.text, found.thought) == ("Because.", True)


@EVERY
def test_margins_do_not_depend_on_the_batch_nor_on_the_window(name):
    """Windows of 16 tokens: prompts and openings lie on both sides of it."""
    model, tokenizer = model_of(name), tokenizer_of(name)
    openings = Openings(present=["Things will get worse"], absent=["Things will get better", "No"])
    texts = ["", "a b c d", "How will it go? " * 5]
    asked = [RenderedPrompt(f"p{n}", "Say: " + text) for n, text in enumerate(texts)]
    found = {}
    for part in margins(model, tokenizer, asked, openings, 8):
        found.update(part)
    for row in asked:
        logs = {
            text: spelled(model, encode(tokenizer, row.text), encode(tokenizer, text))
            for text in (*openings.present, *openings.absent)
        }
        present = torch.stack([logs[text] for text in openings.present]).logsumexp(0)
        absent = torch.stack([logs[text] for text in openings.absent]).logsumexp(0)
        assert found[row.id] == pytest.approx((present - absent).item(), abs=2e-4)


@torch.inference_mode()
def spelled(model, prompt, opening):
    """log p(opening | prompt), in one forward pass without a cache."""
    ids = torch.tensor([prompt + opening])
    logs = model(ids, use_cache=False).logits[0].log_softmax(-1)
    return logs[len(prompt) - 1 : -1].gather(1, torch.tensor(opening)[:, None]).sum()


@pytest.mark.parametrize("rope", ["dynamic", "longrope"])
def test_lengths_at_which_rope_depends_on_the_batch_are_refused(rope):
    scaling = {"rope_type": rope, "factor": 2.0, "rope_theta": 10000.0}
    if rope == "longrope":
        scaling |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
        scaling |= {"original_max_position_embeddings": 64}
        model = model_of("llama2", max_position_embeddings=128, rope_parameters=scaling)
    else:
        model = model_of("llama2", max_position_embeddings=64, rope_parameters=scaling)
    tokenizer = tokenizer_of("llama2")
    short = [RenderedPrompt("p", "How?")]
    assert answers(generate(model, tokenizer, short, GREEDY, 1))
    long = [RenderedPrompt("p", "How? " * 30)]
    openings = Openings(present=["Yes"], absent=["No"])
    with pytest.raises(UndertowError, match="longer than 64"):
        list(generate(model, tokenizer, long, GREEDY, 1))
    with pytest.raises(UndertowError, match="longer than 64"):
        list(margins(model, tokenizer, long, openings, 1))
    assert ends_of(tokenizer, model).every
