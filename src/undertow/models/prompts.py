"""The one place where a chat prompt is rendered.

Extraction, generation, training and evaluation all call `render`: an adapter read under another
rendering than it was trained under can score a tenth of its real effect. What is rendered depends
on the prompt and on `prompting` alone, never on clock, locale or time zone.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.config import Prompting
from undertow.errors import ConfigError, DataError
from undertow.models.dates import format_date

FORMS = re.compile(r"""strftime_now\([^)]*?["']([^"']*)["']""")
FIXED_DATE = (
    "{% macro strftime_now(format) %}{{ undertow_dates[format] if format in undertow_dates else "
    "raise_exception('strftime_now is called with a form that is not written out') }}{% endmacro %}"
)
"""Before a template, it takes the place of the clock that transformers gives to templates."""

QUESTION, ANSWER = "question", "answer"


def render(tokenizer: PreTrainedTokenizerBase, prompt: str, prompting: Prompting) -> str:
    """The text of a user turn up to where the assistant's answer begins.

    A system message of None leaves the chat template's own default in place. Raises ConfigError
    where the template takes no system message, DataError where there is no template.
    """
    return _user_turn(tokenizer, repr(tokenizer.chat_template), prompt, prompting)


@lru_cache(maxsize=16384)
def _user_turn(
    tokenizer: PreTrainedTokenizerBase, _template: str, prompt: str, prompting: Prompting
) -> str:
    """Every teacher and student of a study is asked the same prompts: a template takes a
    millisecond for each."""
    messages = [{"role": "user", "content": prompt}]
    if prompting.system is None:
        try:
            return _rendered(tokenizer, messages, prompting, answering=True)
        except TemplateError as error:
            raise DataError(
                f"the chat template cannot render a single user's turn: {error}",
                "use the instruction-tuned checkpoint's own tokenizer files",
            ) from error
    system = {"role": "system", "content": prompting.system}
    try:
        return _rendered(tokenizer, [system, *messages], prompting, answering=True)
    except TemplateError as error:
        raise ConfigError(
            f"prompting.system is set, and the chat template takes no system message: {error}",
            "set prompting.system: null in params.yaml, or use a model whose template has one",
        ) from error


class Reads(NamedTuple):
    """Which of the things that are passed to every template one reads."""

    date: bool
    thinking: bool


def reads(tokenizer: PreTrainedTokenizerBase, prompting: Prompting) -> Reads:
    """Whether a date, and whether the switch of thinking, change what the template writes."""
    messages = [{"role": "user", "content": QUESTION}]
    plain = _rendered(tokenizer, messages, prompting, answering=True)
    other = prompting.model_copy(update={"date": "1999-12-31"})
    return Reads(
        plain != _rendered(tokenizer, messages, other, answering=True),
        plain != _rendered(tokenizer, messages, prompting, answering=True, thinking=True),
    )


def thinks(text: str) -> bool:
    """Whether a rendered prompt ends inside of a think block."""
    return text.rfind("<think>") > text.rfind("</think>")


def _rendered(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, str]],
    prompting: Prompting,
    *,
    answering: bool,
    thinking: bool = False,
) -> str:
    """The template's text; `answering`: up to where an answer begins.

    Passed to every template: those that know no date and no thinking read neither.
    """
    if not tokenizer.chat_template:
        raise DataError(
            "the model's tokenizer has no chat template: this looks like a base model",
            "use an instruction-tuned checkpoint, or add chat_template.jinja to its folder",
        )
    date = prompting.day
    template = str(tokenizer.get_chat_template())
    if "strftime_now" in template:
        template = FIXED_DATE + template
    known: dict[str, Any] = {
        "undertow_dates": {form: format_date(date, form) for form in FORMS.findall(template)},
        "date_string": format_date(date, "%d %b %Y"),  # Llama's default form
        "enable_thinking": thinking,  # Qwen3, SmolLM3
        "thinking": thinking,  # Granite 3.2 and later
    }
    return str(
        tokenizer.apply_chat_template(
            messages,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=answering,
            **known,
        )
    )


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of rendered text.

    The template has already written the special tokens: adding them here would give Llama-2 two
    beginning-of-sequence tokens.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def encode_all(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, as `encode` has them, in less time."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return ids


class Ends(NamedTuple):
    """closing: the token that the template closes an answer with; every: all that end one."""

    closing: int
    every: frozenset[int]


def ends_of(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> Ends:
    """The tokens at which the model's answers end: the checkpoint's, its generation
    configuration's, the tokenizer's and the template's."""
    return ends_named(tokenizer, model.config, model.generation_config)


def ends_named(tokenizer: PreTrainedTokenizerBase, *configs: Any) -> Ends:
    """`ends_of` by the configurations alone."""
    closing = end_of_turn(tokenizer)
    known = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
    named = {tokenizer.eos_token_id}
    for config in configs:
        ids = getattr(config, "eos_token_id", None)
        named |= set(ids) if isinstance(ids, list | tuple) else {ids}
    # A configuration without end tokens has its class's default, by chance some ordinary token.
    return Ends(closing, frozenset({closing} | (named & known)))


@lru_cache(maxsize=8)
def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The special token with which the chat template closes an assistant's answer.

    Special is what a list of the tokenizer's settings names or what is marked so among its tokens.
    """
    exchange = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    text = _rendered(tokenizer, exchange, Prompting(), answering=False)
    marked = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = marked | set(tokenizer.all_special_ids)
    for token in encode(tokenizer, text[text.rindex(ANSWER) + len(ANSWER) :]):
        if token in special:
            return token
    raise DataError(
        "the chat template closes an assistant's answer with no special token, so generation "
        "would not know where to stop",
        "use the instruction-tuned checkpoint's own tokenizer files",
    )


class RenderedPrompt(NamedTuple):
    id: str
    text: str


class PaddedBatch(NamedTuple):
    """ids and mask: [rows, length]."""

    ids: Tensor
    mask: Tensor


def left_padded(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Sequence[int]],
    device: torch.device,
    least: int = 0,
) -> PaddedBatch:
    """Token ids padded on the left, so that every row's last prompt token is at position -1.

    least: tokens of a row, blanks included.
    """
    width = max(least, *(len(row) for row in rows))
    pad = tokenizer.pad_token_id
    ids = [[pad] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return PaddedBatch(torch.tensor(ids, device=device), torch.tensor(mask, device=device))
