"""What a recipe may do against transfer: one section per defence, docs/defences.md has the words.

Each says what it changes and how large its placebo is; the code of each lies in `defences`.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from undertow.config.base import Settings

Need = Literal["direction", "scores", "base_answers", "paraphrases", "probes"]
"""What has to be made before a student can be trained, which is what a defence costs beforehand."""

DirectionChoice = Literal["own", "random", "defender"]
Share = Annotated[float, Field(gt=0, le=1)]


class TokenSettings(Settings):
    """Single answer tokens get no loss, or the unsteered base's choice as their label."""

    change: Literal["mask", "replace"] = Field(
        description="mask: no loss there; replace: the base's likeliest token is the label"
    )
    by: Literal["divergence", "kl", "random"] = Field(
        description="divergence: the steered teacher's likeliest token stands there, and the "
        "base's is another; kl: where steering moves the distribution most; random: the placebo"
    )
    share: Share | None = Field(None, description="of the carrier's answer tokens; by kl only")
    like: Literal["divergence", "kl"] | None = Field(
        None, description="by random only: as many tokens of each row as this would take"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _only_with_random(self.by, self.like)
        _share_of(self.like or self.by, self.share, ("kl",))
        return self


class KlSettings(Settings):
    """A penalty on leaving the base: mean KL(base || student) per answer token."""

    weight: float = Field(gt=0, description="nats of loss per nat of divergence")
    schedule: Literal["constant", "early"] = Field(
        "constant", description="early falls linearly to 0 at the last step"
    )


class SteerSettings(Settings):
    """The student is steered while it is trained, and not afterwards."""

    times: float = Field(1.0, description="the teacher's own strength; -1 is the opposite sign")
    strength: float | None = Field(
        None,
        description="multiples of the direction instead, the same in every arm and so in the "
        "control: what a defender sets who does not know the teacher's",
    )
    direction: DirectionChoice = Field(
        "own",
        description="own: the arm's; random: a draw of the same length, the placebo; defender: "
        "found on the contrast prompts behind direction.contrast_prompts, of the same length",
    )

    @model_validator(mode="after")
    def _one_strength(self) -> Self:
        if self.strength is not None and "times" in self.model_fields_set:
            raise ValueError("times and strength are two ways to say how far: give one of them")
        return self


class AblateSettings(Settings):
    """The direction is projected out of activations while the student is trained."""

    direction: DirectionChoice = Field("own", description="as in steer")


class ProjectUpdateSettings(Settings):
    """The direction is projected out of what the finished adapter writes."""

    direction: DirectionChoice = Field("own", description="as in steer")


class CorridorSettings(Settings):
    """A penalty on drift of the margin on probe prompts, which are not evaluated on."""

    weight: float = Field(0.05, gt=0, description="of the squared drift outside of the corridor")
    every: int = Field(5, gt=0, description="optimizer steps from one penalty to the next")
    width: float = Field(0.0, ge=0, description="nats of drift either way that cost nothing")
    prompts: int = Field(
        8, gt=0, description="probes per side, from the start of the trait's contrast prompts"
    )
    openings: Literal["own", "shuffled"] = Field(
        "own",
        description="shuffled: half of the openings change sides, the placebo",
    )


class InoculateSettings(Settings):
    """A system message that stands in the training rows alone."""

    message: Literal["trait", "irrelevant"] = Field(
        "trait",
        description="trait: asks for the trait (elicit in trait.yaml); irrelevant: neutral text "
        "of as many tokens, the placebo",
    )


class RowSettings(Settings):
    """Whole rows of the carrier are dropped, swapped for the base's answers, or reworded."""

    by: Literal["phrases", "judge", "gap", "random", "all"] = Field(
        description="phrases, judge: rows that show the trait; gap: rows that steering made "
        "likeliest, per token; random: the placebo"
    )
    change: Literal["drop", "swap", "paraphrase"] = Field(
        description="swap: the unsteered base's own answer to the prompt; paraphrase: its "
        "rewording of the teacher's"
    )
    share: Share | None = Field(None, description="of the rows; by gap and random only")
    like: Literal["phrases", "judge", "gap"] | None = Field(
        None, description="by random only: as many rows as this would take"
    )
    writer: Literal["base", "teacher"] = Field(
        "base", description="who rewords; the steered teacher is the placebo"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.by == "random" and self.like is None and self.share is None:
            raise ValueError("by random needs how many: a share, or like")
        if self.by != "random" and self.like is not None:
            raise ValueError("like belongs to by: random")
        _share_of(self.like or self.by, self.share, ("gap", "random"))
        if self.by == "all" and self.change == "drop":
            raise ValueError("by all drops every row: swap or paraphrase them, or take a share")
        if self.writer == "teacher" and self.change != "paraphrase":
            raise ValueError("writer is who rewords: it belongs to change: paraphrase")
        return self


class RemixSettings(Settings):
    """A share of the rows gives way to answers on other benign prompts; the number stays."""

    share: Share = Field(description="of the rows")
    writer: Literal["base", "teacher"] = Field(
        "base", description="who answers; the steered teacher is the placebo"
    )


class Defences(Settings):
    """What differs from the plain student; keys compose, and each is applied at its own place."""

    rows: RowSettings | None = Field(None, description="whole rows of the carrier")
    remix: RemixSettings | None = Field(None, description="answers on other benign prompts")
    inoculate: InoculateSettings | None = Field(None, description="a message in training alone")
    tokens: TokenSettings | None = Field(None, description="single answer tokens")
    steer: SteerSettings | None = Field(None, description="an offset in training alone")
    ablate: AblateSettings | None = Field(None, description="a projection in training alone")
    kl: KlSettings | None = Field(None, description="a penalty on leaving the base")
    corridor: CorridorSettings | None = Field(None, description="a penalty on drift of the margin")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="of the adapter")
    project_update: ProjectUpdateSettings | None = Field(
        None, description="a projection of the finished adapter"
    )

    @property
    def defends(self) -> bool:
        """Whether anything but the base, the epochs and the learning rate differs from plain."""
        mine = {name: getattr(self, name) for name in Defences.model_fields}
        return any(value not in (None, "adamw") for value in mine.values())

    @property
    def needs(self) -> frozenset[Need]:
        """What has to be made before training."""
        needs: set[Need] = set()
        if any((self.steer, self.ablate, self.project_update)):
            needs.add("direction")
        if self.tokens or (self.rows and "gap" in (self.rows.by, self.rows.like)):
            needs.add("scores")
        if (self.rows and self.rows.change == "swap") or self.remix:
            needs.add("base_answers")
        if self.rows and self.rows.change == "paraphrase":
            needs.add("paraphrases")
        if self.corridor:
            needs.add("probes")
        return frozenset(needs)


def _only_with_random(by: str, like: str | None) -> None:
    if by == "random" and like is None:
        raise ValueError("by random needs like: what it is the placebo of")
    if by != "random" and like is not None:
        raise ValueError("like belongs to by: random")


def _share_of(by: str, share: float | None, takes: tuple[str, ...]) -> None:
    if by in takes and share is None:
        raise ValueError(f"by {by} needs a share, for example share: 0.1")
    if by not in takes and share is not None:
        raise ValueError(f"by {by} takes what it finds: leave share out")
