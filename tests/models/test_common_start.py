"""What prompts begin with is read once, and nothing that is read after it tells the difference."""

import pytest
import torch

from tiny import Family, tiny_model, tiny_tokenizer
from undertow.config import Prompting
from undertow.engine.generate import generate_together
from undertow.engine.sampling import Asking, Sampling
from undertow.models.common_start import Kept, common_start, may_share, prompted
from undertow.models.prompts import RenderedPrompt, encode, left_padded, render
from undertow.readouts.activations import activations_together
from undertow.readouts.margin import margins_together
from undertow.study.traits import Openings


def test_a_common_start_leaves_a_token_of_each_prompt():
    assert common_start([[1, 2, 3, 4], [1, 2, 5]]) == [1, 2]
    assert common_start([[1, 2, 3], [1, 2]]) == [1]
    assert common_start([[7, 8], [7, 8]]) == [7]
    assert common_start([[1, 2], [3, 4]]) == []
    assert common_start([[1, 2, 3]]) == []


@pytest.mark.parametrize("family", ["llama2", "qwen2", "smollm2"])
def test_the_logits_are_those_of_whole_prompts(family: Family):
    tokenizer = tiny_tokenizer(family)
    model = tiny_model(family, len(tokenizer)).eval()
    texts = ["How will it go" + " really" * number for number in range(4)]
    rows = [encode(tokenizer, render(tokenizer, text, Prompting())) for text in texts]
    whole = left_padded(tokenizer, rows, model.device)
    lengths: list[tuple[int, ...]] = []
    model.model.register_forward_pre_hook(
        lambda _m, _a, given: lengths.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    with torch.inference_mode():
        expected = model(input_ids=whole.ids, attention_mask=whole.mask).logits[:, -1]
        lengths.clear()
        batch = prompted(model, tokenizer, rows, 1)
        found = model(
            input_ids=batch.ids[:, batch.read :],
            attention_mask=batch.mask,
            position_ids=batch.positions[:, batch.read :],
            past_key_values=batch.cache,
        ).logits[:, -1]
    assert batch.read == len(common_start(rows)) > 5
    assert lengths == [(1, batch.read), (4, whole.ids.shape[1] - batch.read)]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_nothing_is_shared_where_a_window_counts_blanks():
    model = tiny_model("smollm2", 64)
    assert may_share(model)
    model.config.sliding_window = 16
    assert not may_share(model)


@pytest.mark.parametrize("family", ["llama2", "qwen2", "smollm2"])
def test_answers_margins_and_activations_read_the_same_prompts_once(family: Family):
    tokenizer = tiny_tokenizer(family)
    model = tiny_model(family, len(tokenizer)).eval()
    texts = ["How will it go" + " really" * number for number in range(5)]
    rows = [
        RenderedPrompt(f"r{number}", render(tokenizer, text, Prompting()))
        for number, text in enumerate(texts)
    ]
    openings = Openings(
        present=("Things get worse", "It is bleak"), absent=("Sure", "It is bright")
    )
    widths: list[int] = []

    def asked(kept: Kept | None, size: int = 5):
        widths.clear()
        blocks = list(
            generate_together(model, tokenizer, rows, [Asking(Sampling(6, 0, 1, 0))], size, kept)
        )
        answers = [row.text for block in blocks for row in block.completions[0]]
        margins = [
            part[0] for part in margins_together(model, tokenizer, rows, openings, size, 1, kept)
        ]
        means = activations_together(model, tokenizer, texts, Prompting(), size, 1, kept)
        return answers, margins, means

    model.model.register_forward_pre_hook(
        lambda _m, _a, given: widths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    apart = asked(None)
    long = sum(width > 20 for width in widths)
    shared = asked(Kept())
    assert sum(width > 20 for width in widths) == long // 3
    assert shared[0] == apart[0]
    for ours, theirs in zip(shared[1], apart[1], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    torch.testing.assert_close(shared[2], apart[2], rtol=1e-4, atol=1e-4)
    again = asked(Kept(), 3)  # in two batches, each of which another follows
    assert again[0] == apart[0]
    torch.testing.assert_close(again[2], apart[2], rtol=1e-4, atol=1e-4)
