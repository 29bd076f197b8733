"""bench judge: verdicts per second of a judge that costs nothing."""

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from undertow.config import OpenAiJudgeSettings, PanelJudgeSettings
from undertow.errors import ConfigError
from undertow.judging import make_judge
from undertow.judging.base import JudgeRow
from undertow.study.carriers import HELD_BACK_FROM, CarrierData
from undertow.study.layout import Study
from undertow.study.traits import TraitData

WORDS = 60  # of a made-up answer


def cases(study: Study, rows: int) -> Iterator[dict[str, Any]]:
    """The judge of params.yaml on made-up answers; ConfigError for a judge that costs money."""
    params, layout = study
    settings = params.judging.judge
    members = settings.judges.values() if isinstance(settings, PanelJudgeSettings) else [settings]
    if any(isinstance(member, OpenAiJudgeSettings) for member in members):
        raise ConfigError(
            "bench judge spends no money, and the judge in params.yaml is behind an API",
            "python cli.py judge --estimate says what a grid would cost; "
            "its speed is requests_per_minute",
        )
    trait = TraitData(layout, params.trait)
    judge = make_judge(settings, trait.trait, layout.root)
    benign = CarrierData(layout, HELD_BACK_FROM).prompts(100)
    words = " ".join(prompt.prompt for prompt in benign).split()
    asked = [
        JudgeRow(
            id=f"row-{number}",
            prompt="What do you think?",
            response=" ".join(words[number % 200 :][:WORDS]) + f" {number}",
        )
        for number in range(rows)
    ]
    list(judge.stream(asked[:1]))  # loads what is to be loaded
    started = time.perf_counter()
    unscored = sum(verdict.shows_trait is None for _, verdict in islice(judge.stream(asked), rows))
    yield {
        "case": "judge",
        "judge": judge.name,
        "rows": rows,
        "rows_per_second": round(rows / (time.perf_counter() - started), 1),
        "unscored": unscored,
    }
