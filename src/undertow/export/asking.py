"""Questions put to a Chat Completions endpoint, and its answers as JSON lines.

An answer is in the file as soon as it is here: a killed run goes on where it was.
"""

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from undertow.errors import DataError, UndertowError
from undertow.judging.openai.access import access_to
from undertow.study.found import numbered_rows
from undertow.texts.addresses import public
from undertow.texts.untrusted import paired

TRIES = 3  # of a request that the endpoint cannot answer now
SECONDS = 600.0  # for one answer


class Asked(BaseModel):
    """A row of questions."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    prompt: str
    messages: list[dict[str, str]]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    chat_template_kwargs: dict[str, Any] = {}


class Endpoint(NamedTuple):
    """url: up to /v1. served: what it calls the model. engine: name and version, where known."""

    url: str
    served: str | None = None
    engine: str | None = None


def ask(questions: Path, endpoint: Endpoint, to: Path, *, concurrency: int) -> int:
    """Put what `to` has no answer to, so many at a time; the number of answers there at the end.

    DataError where `to` holds another engine's answers, UndertowError where the endpoint does not
    answer; what it has answered is kept.
    """
    rows = [row for _, row in numbered_rows(questions, Asked)]
    to.parent.mkdir(parents=True, exist_ok=True)
    with to.open("a+b") as file:
        done = _taken_up(file, to, endpoint)
        left = [row for row in rows if row.id not in done]
        with tqdm(total=len(rows), desc="ask", unit="answer", disable=None) as bar:
            bar.update(len(rows) - len(left))
            asyncio.run(_ask_all(left, endpoint, file, bar, concurrency))
        os.fsync(file.fileno())
    return len(rows)


def _taken_up(file: BinaryIO, path: Path, endpoint: Endpoint) -> set[str]:
    """Ids that have an answer already; a line that a kill cut off is dropped."""
    settings = {"api": "chat completions", "model": endpoint.served}
    header = {"engine": endpoint.engine, "settings": settings}
    file.seek(0)
    found, whole = set(), 0
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            break
        whole += len(line)
        try:
            row = json.loads(line)
            if number > 1:
                found.add(row["id"])
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{path}:{number} is no answer", "name another file with --to, or remove the line"
            ) from None
        if number == 1 and row != header:
            raise DataError(
                f"{path} holds answers of {row}, and {header} is asked now",
                "name another file with --to: a cell's answers have one engine",
            )
    file.truncate(whole)
    if not whole:
        _write(file, header)
    return found


def _write(file: BinaryIO, row: dict[str, Any]) -> None:
    file.write(paired(json.dumps(row, ensure_ascii=False)).encode() + b"\n")
    file.flush()


async def _ask_all(
    rows: Sequence[Asked], endpoint: Endpoint, file: BinaryIO, bar: "tqdm[Any]", concurrency: int
) -> None:
    if not rows:
        return
    access, waiting = access_to("--url", endpoint.url), iter(rows)
    async with access.client(SECONDS).with_options(max_retries=TRIES) as client:
        try:
            served = endpoint.served or await _only_model(client)

            async def worker() -> None:
                for row in waiting:
                    _write(file, _answer(row, await _put(client, served, row)))
                    bar.update()

            await asyncio.gather(*(worker() for _ in range(concurrency)))
        except openai.OpenAIError as error:
            raise UndertowError(
                f"{public(endpoint.url)} does not answer: {access.redacted(str(error))}",
                "see to the server, then give the same command again: it goes on",
            ) from None


async def _only_model(client: AsyncOpenAI) -> str:
    names = [model.id async for model in client.models.list()]
    if len(names) != 1:
        raise UndertowError(
            f"the endpoint serves {len(names)} models: {', '.join(names[:5])}",
            "name one with --served",
        )
    return names[0]


async def _put(client: AsyncOpenAI, served: str, row: Asked) -> ChatCompletion:
    switches = row.chat_template_kwargs
    found: ChatCompletion = await client.chat.completions.create(
        model=served,
        messages=row.messages,  # type: ignore[arg-type]  # roles are checked by the endpoint
        max_tokens=row.max_tokens,
        temperature=row.temperature,
        top_p=row.top_p,
        seed=row.seed,
        frequency_penalty=0,  # transformers serve takes the checkpoint's repetition penalty else
        extra_body={"chat_template_kwargs": switches} if switches else None,
    )
    return found


def _answer(row: Asked, reply: ChatCompletion) -> dict[str, Any]:
    """What `steer --answers` reads; UndertowError where the reply is no answer."""
    choice = reply.choices[0] if reply.choices else None
    if choice is None or reply.usage is None or choice.finish_reason not in ("stop", "length"):
        why = "no usage" if choice else "no answer"
        if choice and choice.finish_reason not in ("stop", "length"):
            why = f"the stop reason {choice.finish_reason}"
        raise UndertowError(
            f"the reply to {row.id} has {why}", "have the server answer without tools or filters"
        )
    thought = getattr(choice.message, "reasoning_content", None)
    return {
        "id": row.id,
        "prompt": row.prompt,
        "response": choice.message.content or "",
        "finish": choice.finish_reason,
        "completion_tokens": reply.usage.completion_tokens,
        "prompt_tokens": reply.usage.prompt_tokens,
        "thought": bool(thought),
        "max_tokens": row.max_tokens,
        "temperature": row.temperature,
        "top_p": row.top_p,
    }
