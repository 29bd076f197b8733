"""What defences take beside training: made beforehand for their students, or read along in steps.

Tokens at full length. What several recipes draw on is counted once, as it is made once.
"""

from collections.abc import Hashable, Iterator
from typing import Literal, NamedTuple

from undertow.config import Params
from undertow.study.traits import Openings

PROMPT_TOKENS = 64  # of a benign prompt with its chat template, taken for training
# Of a training step's time per token: where adapters alone are trained, the other half is the
# gradient of the activations.
READING = 0.5


class Work(NamedTuple):
    """Tokens of one model that are written, or read in passes without a gradient."""

    what: str
    how: Literal["written", "read"]
    tokens: int

    def seconds(self, generated_per_second: float, trained_per_second: float) -> float:
        if self.how == "written":
            return self.tokens / generated_per_second
        return READING * self.tokens / trained_per_second


def work_of(params: Params, model: str, openings: Openings) -> list[Work]:
    """What the students of all recipes take on this model; no entry where that is nothing."""
    found = [*_beforehand(params, model), *_in_training(params, model, openings)]
    return [work for work in found if work.tokens]


def judged_rows(params: Params) -> int:
    """Carrier rows that the judge is asked about, for recipes that choose rows by it."""
    texts = {
        cell.plain
        for cell in params.all_cells()
        if (rows := params.recipe(cell.student).rows) is not None
        and "judge" in (rows.by, rows.like)
    }
    return len(texts) * params.carrier.prompts


def _beforehand(params: Params, model: str) -> Iterator[Work]:
    scored: set[Hashable] = set()
    swapped: set[Hashable] = set()
    reworded: set[Hashable] = set()
    remixed: dict[Hashable, float] = {}
    for cell in params.all_cells():
        if cell.model != model:
            continue
        recipe, text = params.recipe(cell.student), (cell.arm, cell.seed)
        if "scores" in recipe.needs:
            scored.add(text)
        if recipe.rows is not None and recipe.rows.change == "swap":
            swapped.add(cell.seed)  # the base answers alike in every arm
        if recipe.rows is not None and recipe.rows.change == "paraphrase":
            reworded.add((recipe.rows.writer, text))
        if recipe.remix is not None:
            of = cell.seed if recipe.remix.writer == "base" else text
            remixed[of] = max(remixed.get(of, 0.0), recipe.remix.share)
    carrier = params.carrier
    written = carrier.prompts * carrier.max_new_tokens
    both = 2 * carrier.prompts * (PROMPT_TOKENS + carrier.max_new_tokens)
    yield Work("token scores", "read", both * len(scored))
    yield Work("the base's answers", "written", written * len(swapped))
    yield Work("rewordings", "written", written * len(reworded))
    yield Work("answers to other prompts", "written", round(written * sum(remixed.values())))


def _in_training(params: Params, model: str, openings: Openings) -> Iterator[Work]:
    carrier = params.carrier
    row = PROMPT_TOKENS + carrier.max_new_tokens
    along = probed = 0
    for cell in params.all_cells():
        if params.student_base(cell) != model:
            continue
        recipe = params.recipe(cell.student)
        rows = params.distillation_of(cell.student).epochs * carrier.prompts
        if recipe.kl is not None:
            along += rows * row
        if recipe.corridor is not None:
            steps = rows // params.distillation.batch_size
            probes = 2 * recipe.corridor.prompts * (len(openings.present) + len(openings.absent))
            # With a gradient, which is twice what a pass without one takes.
            probed += 2 * (steps // recipe.corridor.every) * probes * PROMPT_TOKENS
    yield Work("the base's passes for kl", "read", along)
    yield Work("probes of the corridor", "read", probed)
