"""What judging will cost, before any call is made."""

from collections.abc import Iterable
from typing import NamedTuple

from undertow.config import PLAIN, Cell, OpenAiJudgeSettings, PanelJudgeSettings
from undertow.judging import CACHE
from undertow.judging.base import JudgeRow
from undertow.judging.openai.prices import CHARACTERS_PER_TOKEN, price_date
from undertow.study.found import read_rows
from undertow.study.layout import Study
from undertow.study.records import Response
from undertow.study.traits import Trait, TraitData

ASSUMED_PROMPT = 100  # characters of an evaluation prompt that is not known yet
ASSUMED_REPLY = 90  # tokens: one short sentence and the fields


class Quote(NamedTuple):
    """Rows and cost of judging some cells, before any call is made.

    rows: all rows. cached: those that are already paid for, or equal to another row. assumed:
    those whose responses do not exist yet and are taken to have their full length. usd: None
    where no price is known.
    """

    cells: int
    rows: int
    cached: int
    assumed: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    spent: float
    price_date: str

    def describe(self) -> str:
        """In lines to print."""
        if self.usd is None:
            cost = "cost unknown: set judging.judge.price in params.yaml"
        else:
            cost = f"about {self.usd:.2f} USD at the prices of {self.price_date}"
        return (
            f"{self.cells} cell(s), {self.rows} rows: {self.cached} paid for or equal to another, "
            f"{self.rows - self.cached} to ask ({self.assumed} of them not generated yet)\n"
            f"about {self.prompt_tokens:,} prompt and {self.completion_tokens:,} completion "
            f"tokens; {cost}\nspent so far in this checkout: {self.spent:.2f} USD"
        )


def estimate(study: Study, cells: Iterable[Cell]) -> Quote:
    """What judging these cells costs; asks no endpoint and needs no key.

    Equal rows (greedy teachers of several seeds) count once, rows in the cache not at all.
    """
    chosen = list(cells)
    trait = TraitData(study.layout, study.params.trait).trait
    rows, assumed = _rows(study, chosen)
    settings = study.params.judging.judge
    members = settings.judges.values() if isinstance(settings, PanelJudgeSettings) else [settings]
    prompt = completion = asked = 0  # a panel asks about the same rows, member by member
    usd: float | None = 0.0
    spent = 0.0
    for member in members:
        if not isinstance(member, OpenAiJudgeSettings):
            continue
        one = _member(study, member, trait, rows, assumed)
        asked, prompt, completion = (
            max(asked, one.asked),
            prompt + one.prompt,
            completion + one.reply,
        )
        usd = None if usd is None or one.usd is None else usd + one.usd
        spent = one.spent
    return Quote(
        cells=len(chosen),
        rows=len(rows) + assumed,
        cached=len(rows) + assumed - asked,
        assumed=assumed,
        prompt_tokens=prompt,
        completion_tokens=completion,
        usd=usd,
        spent=spent,
        price_date=price_date(),
    )


class _Member(NamedTuple):
    asked: int
    prompt: int
    reply: int
    usd: float | None
    spent: float


def _member(
    study: Study, settings: OpenAiJudgeSettings, trait: Trait, rows: list[JudgeRow], assumed: int
) -> _Member:
    from undertow.judging.openai.cache import ReplyCache
    from undertow.judging.openai.endpoint import expected_tokens
    from undertow.judging.openai.judge import OpenAiJudge
    from undertow.judging.openai.rubrics import choose_rubric

    rubric = choose_rubric(settings.rubric, trait.name, trait.rubric)
    judge = OpenAiJudge(settings, rubric, study.layout.root / CACHE)
    unpaid = judge.unpaid(rows)
    characters = round(study.params.evaluation.max_new_tokens * CHARACTERS_PER_TOKEN)
    unknown = JudgeRow("", "x" * ASSUMED_PROMPT, "x" * characters)
    prompt = sum(expected_tokens(judge.messages(row)) for row in unpaid.values())
    prompt += assumed * expected_tokens(judge.messages(unknown))
    asked = len(unpaid) + assumed
    reply = asked * ASSUMED_REPLY
    cache = ReplyCache(study.layout.root / CACHE)
    spent = cache.spent().usd or 0.0
    cache.close()
    price = judge.price
    return _Member(asked, prompt, reply, price.usd(prompt, reply) if price else None, spent)


def _rows(study: Study, cells: list[Cell]) -> tuple[list[JudgeRow], int]:
    """The rows that exist, and how many do not yet."""
    rows: list[JudgeRow] = []
    missing = 0
    for cell in cells:
        paths = [study.layout.stage(cell, "distill") / "student.jsonl"]
        if cell.student == PLAIN:  # a teacher is counted once, whatever students it has
            paths.insert(0, study.layout.stage(cell, "steer") / "teacher.jsonl")
        for path in paths:
            if path.exists():
                answers = read_rows(path, Response)
                rows += [JudgeRow(row.id, row.prompt, row.response) for row in answers]
            else:
                missing += study.params.evaluation.prompts
    return rows, missing
