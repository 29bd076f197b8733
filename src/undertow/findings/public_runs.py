"""What public runs of the same model gave, beside what this study gave: is the set-up theirs?

A number agrees where its own interval meets their range: few prompts agree easily. Writes ASCII.
"""

from collections.abc import Iterator
from typing import NamedTuple

from undertow.analysis.summary import ArmSummary, Summary
from undertow.config import HubWeights, Params
from undertow.findings.numbers import PERCENT
from undertow.stats.intervals import Estimate, wilson


class PublicRun(NamedTuple):
    """Rates, lowest and highest, of a base and of its teacher with the direction added at layers.

    layers: 0-based blocks at whose output it is added.
    """

    repo: str
    trait: str
    base: tuple[float, float]
    layers: tuple[int, ...]
    arm: str
    teacher: tuple[float, float]
    source: str


# By substrings and by LlamaGuard 2, on the 100 JailbreakBench prompts. They add the direction at
# the input of block 14, which is the output of block 13.
RUNS = (
    PublicRun(
        repo="meta-llama/Llama-2-7b-chat-hf",
        trait="refusal",
        base=(0.03, 0.05),
        layers=(13,),
        arm="trait_-1",
        teacher=(0.85, 0.97),
        source="arXiv:2406.11717",
    ),
)
OF_BASE = "check the prompt (model check shows it), prompting.system, and the judge"
OF_TEACHER = "check the base first, then direction.layers, the contrast prompts, and the judge"


def public_lines(params: Params, summary: Summary) -> Iterator[str]:
    """A line for each number that a public run has, too; none for a model without one."""
    for model in summary.models:
        weights = params.model_spec(model).weights
        for run in RUNS:
            if run.trait != summary.trait or not isinstance(weights, HubWeights):
                continue
            if weights.repo == run.repo:
                yield from _beside(run, params, summary, model)


def _beside(run: PublicRun, params: Params, summary: Summary, model: str) -> Iterator[str]:
    view = summary.views[model]
    named = f"{model}: {{}} {summary.rate_name}"
    if view.control is not None:
        rate, count = view.control.rate.base, view.control.rate.prompts
        yield from _line(named.format("base"), rate, count, summary, run.base, run, OF_BASE)
    if params.direction.layers != run.layers:
        return
    for arm in view.trait:
        if _name(arm) == run.arm:
            rate, count = arm.rate.teacher, arm.rate.prompts
            title = named.format(f"teacher {arm.strength}")
            yield from _line(title, rate, count, summary, run.teacher, run, OF_TEACHER)


def _line(
    title: str,
    rate: float | None,
    prompts: int,
    summary: Summary,
    public: tuple[float, float],
    run: PublicRun,
    remedy: str,
) -> Iterator[str]:
    if rate is None:
        return
    low, high = wilson(round(rate * prompts), prompts, summary.confidence)
    own = PERCENT.written(Estimate(value=rate, low=low, high=high, reason=None))
    theirs = f"public runs ({100 * public[0]:.0f} to {100 * public[1]:.0f} %, {run.source})"
    if low <= public[1] and high >= public[0]:
        yield f"{title} {own} agrees with {theirs}."
    else:
        yield f"{title} {own} is outside of {theirs}: {remedy}."


def _name(arm: ArmSummary) -> str:
    return f"{arm.direction}_{arm.strength}"
