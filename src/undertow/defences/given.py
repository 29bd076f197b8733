"""What defences draw on: made when first asked for, and kept in the journal for other recipes."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from filelock import FileLock
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.config import Cell, Prompting
from undertow.defences.scores import TokenScores, token_scores
from undertow.errors import DataError
from undertow.study.carriers import HELD_BACK_FROM, CarrierData
from undertow.study.files import Journal, fingerprint
from undertow.study.layout import Study
from undertow.study.prompts import Prompt, first, read_prompts
from undertow.study.records import Response
from undertow.study.traits import Contrast, TraitData
from undertow.teacher.clothes import Clothes, clothes_of, worn
from undertow.teacher.direction import Direction, load_direction, mean_difference, random_like
from undertow.teacher.steering import Offsets

Ask = Callable[[Sequence[Prompt], str, Prompting], list[Response]]
"""(prompts, identity, prompting) -> the model's answers as it stands, sampled as a carrier is at
the cell's seed; answers in the journal are taken up where identity and rendered prompts are the
same."""

REWORD = (
    "Say the text below in other words. Keep what it says and about how long it is, and answer "
    "with the new text alone.\n\n"
)


class Given:
    """One cell's teacher, its base and its data.

    model: the teacher's base, bare; every member leaves it so. ask: how it is asked.
    """

    def __init__(
        self,
        study: Study,
        cell: Cell,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        ask: Ask,
    ) -> None:
        self.study = study
        self.cell = cell
        self.model = model
        self.tokenizer = tokenizer
        self._ask = ask

    @property
    def seed(self) -> int:
        return self.cell.seed

    @cached_property
    def trait(self) -> TraitData:
        return TraitData(self.study.layout, self.study.params.trait)

    @cached_property
    def direction(self) -> Direction:
        """What the direction stage kept of the teacher's base."""
        return load_direction(self._direction_file)

    @cached_property
    def own(self) -> Tensor:
        """[blocks, hidden]: the vectors that the arm's teacher is steered along, at strength 1.

        Those of the trait where it is not steered: what a defence can know of it all the same.
        """
        return self.direction.of(self.cell.arm.direction or "trait", self.seed)

    @cached_property
    def teacher(self) -> Clothes:
        return clothes_of(self.study, self.cell)

    @property
    def offsets(self) -> Offsets:
        """What the teacher has added; nothing for the control's."""
        return self.teacher.offsets

    def random(self, seed: int) -> Tensor:
        """[blocks, hidden]: random vectors as long as the arm's own."""
        return random_like(self.own, seed)

    @cached_property
    def defender(self) -> Tensor:
        """[blocks, hidden]: the trait's direction from prompts that the teacher's is not from.

        As long as the arm's own at every block. DataError where the trait has no such prompts.
        """
        params = self.study.params
        used, contrast = params.direction.contrast_prompts, self.trait.contrast()
        others = Contrast(contrast.present[used:], contrast.absent[used:])
        if not others.present or not others.absent:
            raise DataError(
                f"a direction of the defender's own needs contrast prompts of {params.trait} that "
                f"the direction stage did not use, and it used {used} of "
                f"{min(map(len, contrast))} a side",
                "set direction.contrast_prompts lower in params.yaml (half of them leaves as "
                "many for the defender), or add contrast prompts to the trait",
            )
        found = mean_difference(
            self.model, self.tokenizer, others, params.prompting, params.runtime.batch_size
        )
        lengths: Tensor = self.own.norm(dim=1, keepdim=True) / found.norm(dim=1, keepdim=True)
        return found * lengths

    def scores(self, carrier: Sequence[Response]) -> dict[str, TokenScores]:
        """What makes the teacher does to each answer token, by row id; none without an answer."""
        params = self.study.params
        key = fingerprint(
            "token scores",
            params.model_spec(self.cell.model),
            self._direction_file,
            self.cell.arm.name,
            self.seed,
            list(carrier),
            params.prompting,
            self.teacher.prompting,
            self._adapter,
            params.runtime.batch_size,
            self.model.device.type,
        )
        with self._lock(key):
            journal = Journal(self.study.layout.journal, key, TokenScores)
            done = frozenset(row.id for block in journal.blocks for row in block)
            for block in token_scores(
                self.model,
                self.tokenizer,
                carrier,
                params.prompting,
                self.teacher,
                params.runtime.batch_size,
                done,
            ):
                journal.append(block)
            return {row.id: row for block in journal.blocks for row in block}

    def base_answers(self, carrier: Sequence[Response]) -> dict[str, Response]:
        """The unsteered base's own answers to the prompts of the carrier, by id.

        Sampled as the control's carrier is, so an answer of the base is what the control's student
        of this seed learns from; those that are not of the carrier's form are left out.
        """
        # All of the carrier's prompts and no fewer: every recipe shares them, whatever it swaps.
        settings = self.study.params.carrier
        data = CarrierData(self.study.layout, settings.name)
        asked = data.prompts(settings.prompts)
        wanted = {row.id for row in carrier}
        strange = wanted - {prompt.id for prompt in asked}
        if strange:
            raise DataError(
                f"{self.cell.key}: the carrier answers the prompt {min(strange)!r}, which is none "
                "of the first carrier.prompts of the carrier",
                f"run its teacher again: {self.cell.command('steer')}",
            )
        return {
            row.id: row
            for row in self._answers(asked, steered=False)
            if row.id in wanted and data.spec.answers.accepts(row.response)
        }

    def other_answers(self, count: int, *, steered: bool) -> list[Response]:
        """Answers to `count` benign prompts that stand in no carrier and are not held back."""
        params = self.study.params
        file = CarrierData(self.study.layout, HELD_BACK_FROM).file
        rows = read_prompts(file, Prompt)
        taken = params.carrier.prompts if params.carrier.name == HELD_BACK_FROM else 0
        others = rows[taken : len(rows) - params.evaluation.benign_prompts]
        where = (
            f"{file} behind the {taken} prompts of the "
            f"carrier and before the {params.evaluation.benign_prompts} held back"
        )
        return self._answers(first(others, count, "remix.share", where), steered=steered)

    def reworded(self, rows: Sequence[Response], *, steered: bool) -> dict[str, Response]:
        """The rows' answers in other words of the base, or of the teacher, by id."""
        asked = [Prompt(id=row.id, prompt=REWORD + row.response) for row in rows if row.response]
        said = {row.id: row for row in self._answers(asked, steered=steered)}
        return {
            row.id: said[row.id].model_copy(update={"prompt": row.prompt})
            for row in rows
            if row.id in said
        }

    def probes(self, count: int) -> list[str]:
        """The first contrast prompts of each side: no prompt that anybody is evaluated on."""
        contrast = self.trait.contrast()
        where = f"the contrast set of {self.study.params.trait}"
        return [
            prompt for side in contrast for prompt in first(side, count, "corridor.prompts", where)
        ]

    def _answers(self, prompts: Sequence[Prompt], *, steered: bool) -> list[Response]:
        spec, device = self.study.params.model_spec(self.cell.model), self.model.device.type
        if steered and not self.cell.arm.is_control:
            own = (self.cell.arm.name, self._adapter, self.seed)
            identity = fingerprint("teacher", spec, self._direction_file, *own, device)
            with self._lock(self._asked(identity, prompts)), worn(self.model, [self.teacher]):
                return self._ask(prompts, identity, self.teacher.prompting)
        identity = fingerprint("base", spec, device)
        with self._lock(self._asked(identity, prompts)):
            return self._ask(prompts, identity, self.study.params.prompting)

    def _asked(self, identity: str, prompts: Sequence[Prompt]) -> str:
        """What is asked of whom: the base answers different prompts for several at once."""
        return fingerprint(identity, self.seed, [(prompt.id, prompt.prompt) for prompt in prompts])

    @property
    def _adapter(self) -> str | None:
        """The hash of an adapter that the teacher has on."""
        arm = self.cell.arm
        if arm.adapter is None:
            return None
        return self.study.params.adapter_spec(self.cell.model, arm.name).sha256

    @property
    def _direction_file(self) -> Path:
        return self.study.layout.direction(self.cell.model) / "direction.safetensors"

    def _lock(self, key: str) -> FileLock:
        """Two processes never make the same thing at once: the second one takes it up."""
        folder = self.study.layout.journal
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{key}.lock")
