"""One renderer: the right template, special tokens once, and a way to stop."""

import pytest
from transformers import PreTrainedTokenizerFast

from tiny import QWEN_SYSTEM, SMOLLM_SYSTEM, tiny_tokenizer
from undertow.config import Prompting
from undertow.errors import DataError
from undertow.models.prompts import encode, end_of_turn, render

EXPECTED = {
    "llama2": "<s>[INST] How? [/INST]",
    "qwen2": f"<|im_start|>system\n{QWEN_SYSTEM}<|im_end|>\n"
    "<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\n",
    "smollm2": f"<|im_start|>system\n{SMOLLM_SYSTEM}<|im_end|>\n"
    "<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\n",
}
STOPS = {"llama2": "</s>", "qwen2": "<|im_end|>", "smollm2": "<|im_end|>"}


@pytest.mark.parametrize("family", EXPECTED)
def test_a_user_turn_is_rendered_up_to_the_answer(family):
    assert render(tiny_tokenizer(family), "How?", Prompting()) == EXPECTED[family]


@pytest.mark.parametrize("family", EXPECTED)
def test_a_system_message_replaces_the_template_s_own(family):
    text = render(tiny_tokenizer(family), "How?", Prompting(system="Be brief."))
    assert "Be brief." in text
    assert QWEN_SYSTEM not in text
    assert SMOLLM_SYSTEM not in text


def test_llama2_gets_one_beginning_of_sequence_token():
    tokenizer = tiny_tokenizer("llama2")
    ids = encode(tokenizer, render(tokenizer, "How?", Prompting()))
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id


@pytest.mark.parametrize("family", STOPS)
def test_the_end_of_turn_is_the_template_s_own_special_token(family):
    tokenizer = tiny_tokenizer(family)
    assert tokenizer.convert_ids_to_tokens(end_of_turn(tokenizer)) == STOPS[family]


def test_a_base_model_is_refused_with_a_remedy():
    tokenizer: PreTrainedTokenizerFast = tiny_tokenizer("qwen2")
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        render(tokenizer, "How?", Prompting())
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    with pytest.raises(DataError, match="no special token"):
        end_of_turn(tokenizer)
