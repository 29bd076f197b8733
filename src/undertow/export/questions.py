"""What a stage would ask, as JSON lines for any engine, with the settings that it asks for."""

import json
from collections.abc import Iterator
from typing import Any

from undertow.config import Cell, Prompting
from undertow.models.dates import format_date
from undertow.models.loading import load_tokenizer, resolve
from undertow.models.prompts import reads, render
from undertow.study.layout import Study
from undertow.study.questions import asked_under, questions_of
from undertow.study.records import AnswersOf
from undertow.study.sources import say


def lines(study: Study, cell: Cell, of: AnswersOf) -> Iterator[str]:
    """A JSON object for each question.

    id, prompt and settings (max_tokens, temperature, top_p) go back with the answer; messages are
    for an engine that renders them, text is what this study renders, special tokens included;
    chat_template_kwargs is there where the template reads such. seed is the cell's: engines draw
    otherwise from the same one.
    """
    model = cell.model if of != "student" else study.params.student_base(cell)
    prompting = asked_under(study, cell, of)
    tokenizer = load_tokenizer(resolve(model, study.params.model_spec(model)))
    found = reads(tokenizer, prompting)
    if found.date and "strftime_now" in str(tokenizer.get_chat_template()):
        say(
            "the chat template writes the day's date, which an engine takes from its clock: have "
            f"it complete `text`, which says {prompting.day}, or set the clock"
        )
    switches = _switches(prompting, thinking=found.thinking, date=found.date)
    for question in questions_of(study, of):
        prompt = question.prompt.prompt
        row: dict[str, Any] = {
            "id": question.id,
            "prompt": prompt,
            "messages": _messages(prompt, prompting),
            "text": render(tokenizer, prompt, prompting),
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            "top_p": question.top_p,
            "seed": cell.seed,
        }
        yield json.dumps(row | switches, ensure_ascii=False)


def _messages(prompt: str, prompting: Prompting) -> list[dict[str, str]]:
    user = {"role": "user", "content": prompt}
    if prompting.system is None:
        return [user]
    return [{"role": "system", "content": prompting.system}, user]


def _switches(prompting: Prompting, *, thinking: bool, date: bool) -> dict[str, Any]:
    """What `render` passes to every template, where this one reads it."""
    found: dict[str, Any] = {}
    if thinking:
        found |= {"enable_thinking": False, "thinking": False}
    if date:
        found |= {"date_string": format_date(prompting.day, "%d %b %Y")}
    return {"chat_template_kwargs": found} if found else {}
