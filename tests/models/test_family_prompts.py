"""What every family's template writes: begin and closing token, the date, no thinking."""

import time

import pytest
import transformers.utils.chat_template_utils as templates
from transformers import GenerationConfig

from families import KINDS, model_of, tokenizer_of
from undertow.config import Prompting
from undertow.errors import ConfigError, UndertowError
from undertow.models.prompts import encode, end_of_turn, ends_of, render, thinks

EVERY = pytest.mark.parametrize("name", KINDS)
DATED = {
    "llama3.2": "Today Date: 09 Mar 2025",
    "granite": "Today's Date: March 09, 2025",
    "smollm3": "Today Date: 09 March 2025",
}
NO_SYSTEM = ("mistral-v0.1", "mistral-v0.1-wide", "mistral-v0.2", "gemma", "gemma2")


def clock(monkeypatch, *moment):
    """Set the clock that transformers hands to templates."""

    class Clock(templates.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(*moment)

    monkeypatch.setattr(templates, "datetime", Clock)


@EVERY
def test_the_ids_are_those_of_the_template_with_one_begin_token(name, monkeypatch):
    clock(monkeypatch, 2026, 1, 1)
    tokenizer, kind = tokenizer_of(name), KINDS[name]
    ids = encode(tokenizer, render(tokenizer, "How will it go?", Prompting()))
    assert ids == tokenizer.apply_chat_template(
        [{"role": "user", "content": "How will it go?"}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
        enable_thinking=False,
    )
    if kind.bos and kind.bos != kind.eos:
        assert ids.count(tokenizer.bos_token_id) == ("{{ bos_token" in kind.template)


@EVERY
def test_an_answer_ends_at_every_token_that_the_checkpoint_names(name):
    tokenizer, kind = tokenizer_of(name), KINDS[name]
    ends = ends_of(tokenizer, model_of(name))
    assert tokenizer.convert_ids_to_tokens(ends.closing) == kind.closing
    assert set(tokenizer.convert_ids_to_tokens(sorted(ends.every))) == set(kind.every_end)
    assert end_of_turn(tokenizer) == ends.closing


def test_an_end_token_of_the_class_is_none_where_it_is_an_ordinary_word():
    model, tokenizer = model_of("qwen2.5"), tokenizer_of("qwen2.5")
    model.config.eos_token_id = 77
    model.generation_config = GenerationConfig(eos_token_id=77)
    assert ends_of(tokenizer, model).every == {end_of_turn(tokenizer)}


@EVERY
def test_a_prompt_is_the_same_on_every_day(name, monkeypatch):
    tokenizer, prompting = tokenizer_of(name), Prompting(date="2025-03-09")
    text = render(tokenizer, "How?", prompting)
    assert DATED.get(name, "") in text

    clock(monkeypatch, 2031, 12, 24, 23, 59)
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        again = render(tokenizer_of(name), "How?", prompting)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert again == text
    other = render(tokenizer, "How?", Prompting(date="2025-03-10"))
    assert (other != text) == (name in DATED)


@pytest.mark.parametrize("value", ["2025-13-01", "tomorrow", 3])
def test_a_date_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="date"):
        Prompting(date=value)


@pytest.mark.parametrize("name", ["qwen3", "smollm3"])
def test_thinking_is_off(name):
    text = render(tokenizer_of(name), "How?", Prompting())
    assert text.endswith("<think>\n\n</think>\n\n")
    assert "/think" not in text.replace("</think>", "")
    assert not thinks(text)


@EVERY
def test_a_system_message_is_written_or_refused_by_its_name(name):
    tokenizer, prompting = tokenizer_of(name), Prompting(system="Be brief.")
    if name not in NO_SYSTEM:
        assert "Be brief." in render(tokenizer, "How?", prompting)
        return
    with pytest.raises(ConfigError, match=r"prompting\.system") as refused:
        render(tokenizer, "How?", prompting)
    assert "System role not supported" in refused.value.message
    assert "null" in refused.value.remedy


def test_a_template_without_a_special_token_at_the_end_is_refused():
    tokenizer = tokenizer_of("llama2")
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message.role + ': ' + message.content + '\n' }}"
        "{% endfor %}"
    )
    with pytest.raises(UndertowError, match="no special token"):
        end_of_turn(tokenizer)
