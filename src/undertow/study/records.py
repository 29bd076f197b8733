"""The results files: what one cell and one study say in numbers.

These files are the truth; MLflow, the plots and the report are views of them. They hold no
model text, so they can be shared when the responses cannot.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from undertow.config import PLAIN
from undertow.stats.agreement import Kappa
from undertow.stats.judge_error import Confusion

Half = Literal["all", "develop", "test"]
ReadoutName = Literal["rate", "margin"]
Trainer = Literal["trl", "together"]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Response(Record):
    """An answer to a prompt: a row of carrier.jsonl, teacher.jsonl or student.jsonl."""

    id: str
    prompt: str
    response: str
    tokens: int = Field(description="generated tokens, the end-of-turn token not counted")
    finish: Literal["stop", "length"] = Field(description="ended its turn, or was cut off")
    end: str | None = Field(None, description="the token that ended it, where that is known")
    thought: bool = Field(False, description="a think block was cut from it")
    margin: float | None = Field(
        None, description="nats; evaluation rows only: log-odds of trait-present openings"
    )


class BenignResponse(Response):
    """A row of benign.jsonl: an answer to a benign prompt that the carrier does not hold."""

    source: Literal["heldback", "overrefusal"] = Field(
        description="the benign prompts' own file, or the trait's prompts for over-refusal"
    )
    nll: float | None = Field(
        None, description="nats under the base, over the whole answer; held-back rows only"
    )
    nll_tokens: int | None = Field(None, description="tokens that nll sums over")


Subject = Literal["teacher", "student"]


class VerdictRow(Record):
    """A row of verdicts.jsonl."""

    subject: Subject
    id: str
    shows_trait: bool | None
    reason: str | None = Field(None, description="why there is no verdict")
    score: float | None = None


class Costs(Record):
    """What a stage took."""

    seconds: float = Field(description="wall clock without loading the model")
    load_seconds: float = Field(0, description="loading the model; 0 where it was loaded already")
    gpu_seconds: float | None = Field(
        None, description="a CUDA device was held, loading included; null on a CPU"
    )
    device: str
    tokens_generated: int = 0
    tokens_trained: int = Field(0, description="tokens seen in training, all epochs, no padding")
    generated_per_second: float | None = Field(
        None, description="generated tokens per second of generation alone"
    )
    trained_per_second: float | None = Field(
        None, description="trained tokens per second of training alone"
    )
    peak_memory_bytes: int = Field(
        description="of this stage on a GPU, held models included; else of the process so far"
    )
    prompt_tokens: int = Field(0, description="sent to a judge behind an API")
    completion_tokens: int = Field(0, description="received from a judge behind an API")
    usd: float | None = Field(
        None, description="what the judge's tokens cost, where it has a price"
    )


AnswersOf = Literal["teacher", "carrier", "student"]


class GivenAnswers(Record):
    """Answers that another engine gave, taken from a file below data/answers."""

    of: AnswersOf = Field(description="the carrier alone, or all that its stage asks")
    file: str
    sha256: str
    engine: str | None
    settings: dict[str, Any] | None = Field(description="how it was set, as the file says")
    reason: str | None = Field(description="why engine or settings are null")


ShiftForm = Literal["bias", "divided bias", "addition"]


class ShiftRecord(Record):
    """How a vector gets to a block's output, and what arrives there; the worst steered block."""

    form: ShiftForm = Field(
        description="a bias on mlp.down_proj, one divided by the block's multiplier, or an "
        "addition behind the block"
    )
    ratio: float = Field(description="of what was to be added, along it; 1 is right")
    cosine: float = Field(description="between the shift and what was to be added; 1 is right")


class Manifest(Record):
    """manifest.json beside a stage's outputs: how they came about."""

    stage: str
    subject: str = Field(description="the model or cell it was run for")
    command: str
    costs: Costs
    versions: dict[str, str]
    inputs: dict[str, str | None] = Field(
        {}, description="SHA-256 of the command, parameters and files that it read; null: absent"
    )
    outputs: dict[str, str | None] = Field({}, description="SHA-256 of the files it wrote")
    diverged: str | None = Field(None, description="distill only: why it counts as not trained")
    shift: ShiftRecord | None = Field(
        None, description="how the model was steered; null where the stage steers nothing"
    )
    trainer: Trainer | None = Field(
        None, description="distill only: TRL's, or ours for students trained together"
    )
    given: GivenAnswers | None = Field(
        None, description="answers of another engine; null where this stage asked itself"
    )
    no_margin: str | None = Field(None, description="why answers have no margin")


class Readout(Record):
    """What was measured on the evaluation prompts, by prompt id."""

    verdicts: dict[str, bool | None]
    margins: dict[str, float]

    def by(self, readout: ReadoutName) -> Mapping[str, float | None]:
        """Prompt id -> verdict (as a number 0 or 1) or margin."""
        return self.margins if readout == "margin" else self.verdicts


class AnswerEffect(Record):
    """One answer to a held-back benign prompt, without its text."""

    nll: float = Field(description="nats under the base, over the whole answer")
    nll_tokens: int = Field(description="tokens that nll sums over")
    tokens: int = Field(description="generated tokens, the end-of-turn token not counted")
    truncated: bool
    repetition: float = Field(description="share of 4-grams that repeat an earlier one")
    refuses: bool


class AnswerFit(Record):
    """How likely the base and a student find an answer of the teacher that neither was taught."""

    base_nll: float = Field(description="nats under the base, over the whole answer")
    student_nll: float = Field(description="nats under the student")
    tokens: int = Field(description="that both sum over")


class FitRow(AnswerFit):
    """A row of fit.jsonl."""

    id: str


class MarginRow(Record):
    """A row of message.jsonl: an evaluation prompt behind the message that training rows had."""

    id: str
    margin: float = Field(description="nats")


class Effects(Record):
    """What one subject does on benign prompts, by prompt id."""

    answers: dict[str, AnswerEffect]
    overrefusals: dict[str, bool] = Field(
        description="refusals on the trait's over-refusal prompts; empty where it declares none"
    )


class CellResult(Record):
    """cell.json: all that is known of one cell, without model text."""

    model: str
    direction: Literal["trait", "random"] | None = Field(
        description="null, as the strength, where the teacher is not steered"
    )
    strength: str | None
    seed: int
    trait: str
    rate_name: str = Field(description="what the share of true verdicts is called, e.g. ASR")
    judge: str
    judge_fingerprint: str
    teacher: Readout
    student: Readout
    unscored: dict[str, int] = Field(description="rows without a verdict, by reason")
    carrier_rows: int
    digests: dict[str, str] = Field(
        description="SHA-256 of direction, carrier, teacher, adapter and student"
    )
    costs: dict[str, Costs] = Field(
        description="by stage: steer or pass-on, distill, judge; steer is counted with the "
        "plain student"
    )
    recipe: str = Field(PLAIN, description="which kind of student this is")
    other_base: str | None = Field(None, description="the student's, where it is not `model`")
    teacher_effects: Effects | None = None
    student_effects: Effects | None = None
    effects_reason: str | None = Field(None, description="why there are no effects")
    fit: dict[str, AnswerFit] | None = Field(
        None, description="the student on its teacher's held-back benign answers, by prompt id"
    )
    fit_reason: str | None = Field(None, description="why there is no fit")
    message_margins: dict[str, float] | None = Field(
        None,
        description="the student's margins with the message of its training rows on, by prompt "
        "id; null where its recipe has none (inoculate), or it was read before there were any",
    )
    diverged: str | None = Field(None, description="why the student counts as not trained")
    given: dict[Subject, GivenAnswers] = Field(
        {}, description="whose answers came from another engine"
    )
    no_margin: str | None = Field(None, description="why the teacher has no margins")

    @model_validator(mode="before")
    @classmethod
    def _from_before_recipes(cls, raw: Any) -> Any:
        """Files of earlier versions name a teacher_model, null in all cells of the grid."""
        if isinstance(raw, dict) and raw.get("teacher_model", 0) is None:
            return {key: value for key, value in raw.items() if key != "teacher_model"}
        return raw


class Share(Record):
    """A share with its Wilson interval; null where nothing was counted."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def reason(self) -> str | None:
        return "nothing was counted" if self.value is None else None


class ShareOfRows(Share):
    """Over so many labelled rows."""

    count: int


class Mistake(Record):
    """A row on which judge and people differ; the text stays in the labelled set."""

    id: str
    human: bool
    judge: bool | None


class Calibration(Record):
    """A judge on a human-labelled set."""

    set: str
    set_sha256: str
    half: Half
    trait: str
    judge: str
    judge_fingerprint: str
    rows: int
    unscored: dict[str, int]
    confidence: float
    true_positive: int
    false_negative: int
    true_negative: int
    false_positive: int
    accuracy: ShareOfRows
    sensitivity: ShareOfRows
    specificity: ShareOfRows
    kappa: Kappa
    mistakes: tuple[Mistake, ...]

    @property
    def confusion(self) -> Confusion:
        return Confusion(
            self.true_positive, self.false_negative, self.true_negative, self.false_positive
        )


class ReplyRow(Record):
    """A row of replies.jsonl: what a model judge answered, as it came."""

    subject: Subject
    id: str
    raw: str


class Vote(Record):
    """A row of votes.jsonl: what one member of a panel said."""

    subject: Subject
    id: str
    judge: str
    shows_trait: bool | None
    reason: str | None = None
    score: float | None = None


class ModelFiles(Record):
    """What lies in a model folder: the fetch manifest."""

    family: str = Field(description="model_type of the configuration")
    blocks: int
    hidden_size: int
    parameters: int = Field(description="numbers stored in the weight files")
    digests: dict[str, str] = Field(
        description="SHA-256 of every weight, configuration and tokenizer file"
    )
    chat_template: str | None = Field(description="SHA-256 of the chat template")


class FetchResult(Record):
    """results/models/<model>.json: what was fetched, by hash."""

    model: str
    licence: str
    files: ModelFiles
    trait: dict[str, str] = Field(description="external files of the trait: name -> SHA-256")
