"""The margin against its definition, computed the slow way."""

import pytest
import torch

from tiny import Family, tiny_model, tiny_tokenizer
from undertow.config import Prompting
from undertow.errors import DataError
from undertow.models.prompts import RenderedPrompt, encode, render
from undertow.readouts.margin import margins, tokenize_openings
from undertow.study.traits import Openings

OPENINGS = Openings(
    present=("Things will get worse", "Unfortunately", "It is unlikely"),
    absent=("Things will get better", "Things go", "There are good reasons to hope"),
)


@torch.inference_mode()
def slow_margin(model, tokenizer, text):
    """One full forward per opening: no cache, no padding, no batch."""
    prompt = encode(tokenizer, text)

    def log_probability(opening):
        ids = encode(tokenizer, opening)
        logits = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        return sum(logits[len(prompt) - 1 + step, token] for step, token in enumerate(ids))

    present, absent = (
        torch.stack([log_probability(opening) for opening in side]).logsumexp(0)
        for side in (OPENINGS.present, OPENINGS.absent)
    )
    return (present - absent).item()


@pytest.mark.parametrize("family", ["llama2", "qwen2", "smollm2"])
def test_margins_equal_their_definition_with_a_shared_cache_and_left_padding(family: Family):
    tokenizer = tiny_tokenizer(family)
    model = tiny_model(family, len(tokenizer))
    rows = [
        RenderedPrompt(
            f"p{number}", render(tokenizer, "How will it go?" + " really" * number, Prompting())
        )
        for number in range(5)
    ]
    found = {}
    for part in margins(model, tokenizer, rows, OPENINGS, batch_size=3):
        found.update(part)
    for row in rows:
        assert found[row.id] == pytest.approx(slow_margin(model, tokenizer, row.text), abs=1e-3)


def test_the_prompt_and_what_openings_begin_with_are_fed_once_for_all_of_them():
    tokenizer = tiny_tokenizer("smollm2")
    model = tiny_model("smollm2", len(tokenizer))
    lengths = []
    model.register_forward_pre_hook(
        lambda _m, _a, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    text = render(tokenizer, "How will it go?", Prompting())
    list(margins(model, tokenizer, [RenderedPrompt("p", text)], OPENINGS, batch_size=1))
    assert lengths.count(len(encode(tokenizer, text))) == 1
    fed = [
        tuple(encode(tokenizer, text)[:-1])
        for side in (OPENINGS.present, OPENINGS.absent)
        for text in side
    ]
    needed = {ids for ids in fed if not any(o != ids and o[: len(ids)] == ids for o in fed)}
    assert sum(lengths[1:]) == sum(map(len, needed)) < sum(map(len, fed))


def test_an_opening_that_begins_with_another_is_an_error():
    tokenizer = tiny_tokenizer("qwen2")
    with pytest.raises(DataError, match="begins with"):
        tokenize_openings(tokenizer, Openings(present=("Sure, here",), absent=("Sure",)))
