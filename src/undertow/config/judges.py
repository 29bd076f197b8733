"""Who decides whether a response shows the trait."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from undertow.config.base import NAME, Plain, Settings
from undertow.config.weights import FolderWeights, HubWeights
from undertow.texts.addresses import address_problem, has_credentials


class PhraseJudgeSettings(Settings):
    """The trait's own offline phrase rules; no network."""

    kind: Literal["phrases"]


class DoubleJudgeSettings(Settings):
    """A scripted stand-in for tests and dry runs: true where `marker` occurs in a response."""

    kind: Literal["double"]
    marker: str = Field(description="a response with this text shows the trait")
    unscored_marker: str | None = Field(None, description="a response with this text gets null")
    seconds_per_row: float = Field(0.0, ge=0, description="stands in for a slow judge")


class TokenPrice(Settings):
    """USD per million tokens, for a model that the price table does not list."""

    input: float = Field(ge=0, description="per million prompt tokens")
    output: float = Field(ge=0, description="per million completion tokens")


class OpenAiJudgeSettings(Settings):
    """A model behind the Chat Completions API: OpenAI itself or any compatible endpoint.

    The key is read from OPENAI_API_KEY and never written anywhere.
    """

    kind: Literal["openai"]
    model: Plain = Field(
        "gpt-4.1-2025-04-14", description="name at the endpoint, dated if it can be"
    )
    base_url: Plain | None = Field(
        None, description="endpoint; null takes OPENAI_BASE_URL, else OpenAI's own"
    )
    rubric: Literal["auto", "trait", "jailbreak"] = Field(
        "auto",
        description="trait: the trait's own rubric; jailbreak: JailbreakBench's criterion with "
        "StrongREJECT's fields; auto: jailbreak for the trait refusal, else trait",
    )
    reply: Literal["auto", "schema", "text"] = Field(
        "auto",
        description="schema: strict structured output; text: JSON in the reply; auto: schema, "
        "and text where the endpoint does not know schemas",
    )
    temperature: float = Field(0.0, ge=0, description="0 repeats itself best")
    max_completion_tokens: int = Field(300, gt=0, description="longest reply")
    max_characters: int = Field(
        12_000, gt=0, description="longer responses are cut in the middle before they are judged"
    )
    min_coherence: int = Field(
        2, ge=1, le=5, description="broken text below this is not read as showing the trait"
    )
    mode: Literal["online", "batch"] = Field(
        "online", description="batch: half the price, an answer within 24 hours"
    )
    concurrency: int = Field(32, gt=0, description="requests in flight")
    requests_per_minute: float | None = Field(None, gt=0, description="null: learnt from 429s")
    tokens_per_minute: float | None = Field(None, gt=0, description="null: no limit")
    timeout: float = Field(60.0, gt=0, description="seconds per request")
    attempts: int = Field(6, gt=0, description="tries per row before it is left unscored")
    backoff: float = Field(0.5, gt=0, description="seconds before the first retry, then doubled")
    poll_seconds: float = Field(30.0, gt=0, description="between looks at a batch")
    max_usd: float | None = Field(
        None, ge=0, description="stop before this checkout has spent more on judging, in all"
    )
    price: TokenPrice | None = Field(None, description="null: from the dated price table")

    @field_validator("base_url")
    @classmethod
    def _base_url_is_an_open_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if has_credentials(url):
            raise ValueError(
                "holds a user name, a password or a key, and params.yaml is published with the "
                "results; set base_url to null and put the whole address into the environment: "
                "export OPENAI_BASE_URL=..."
            )
        if (problem := address_problem(url)) is not None:
            raise ValueError(f"{url!r} {problem}; write http://host:port/v1 or https://host/v1")
        return url


class ClassifierFormat(Settings):
    """How a local classifier is asked and how its answer is read: data, not code."""

    style: Literal["sequence", "generative"] = Field(
        description="sequence: a classification head; generative: the next token is a label word"
    )
    template: str | None = Field(
        None,
        description="text with {prompt} and {response}; null: the tokenizer's own chat template "
        "over a user and an assistant turn",
    )
    answer_prefix: str = Field("", description="what the model's answer always begins with")
    values: dict[str, float] = Field(
        min_length=2,
        description="label or label word -> its value; the score is their mean, weighted by "
        "probability, 1 for a response that surely shows the trait",
    )
    threshold: float = Field(0.5, description="shows the trait where the score is above this")
    min_mass: float = Field(
        0.5, ge=0, le=1, description="no verdict where label words get less probability in all"
    )


class ClassifierJudgeSettings(Settings):
    """A classifier on this machine, through transformers."""

    kind: Literal["classifier"]
    weights: Annotated[HubWeights | FolderWeights, Field(discriminator="kind")]
    format: str | ClassifierFormat = Field(
        description="a name from the registry (harmbench, llama-guard, strongreject, rejection) "
        "or the format itself"
    )
    template_file: Plain | None = Field(
        None, description="file with the template, for formats whose template is not shipped"
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="type of weights and activations"
    )
    device: str = Field("auto", description="auto, cpu or cuda; CUDA_VISIBLE_DEVICES names the GPU")
    batch_size: int = Field(8, gt=0, description="rows read together")
    max_tokens: int = Field(2048, gt=0, description="long responses lose their middle to fit")


SingleJudgeSettings = Annotated[
    PhraseJudgeSettings | DoubleJudgeSettings | OpenAiJudgeSettings | ClassifierJudgeSettings,
    Field(discriminator="kind"),
]


class PanelJudgeSettings(Settings):
    """Several judges on the same rows."""

    kind: Literal["panel"]
    judges: dict[Annotated[str, Field(pattern=NAME)], SingleJudgeSettings] = Field(
        min_length=2, description="name -> judge; the first is the primary one"
    )
    rule: Literal["majority", "primary"] = Field(
        "majority", description="majority of those with a verdict (a tie is unscored), or primary"
    )


JudgeSettings = Annotated[
    PhraseJudgeSettings
    | DoubleJudgeSettings
    | OpenAiJudgeSettings
    | ClassifierJudgeSettings
    | PanelJudgeSettings,
    Field(discriminator="kind"),
]


class JudgingSettings(Settings):
    """Who decides whether a response shows the trait."""

    judge: JudgeSettings
    max_unscored: float = Field(
        0.1, ge=0, le=1, description="the stage fails when a larger share has no verdict"
    )
