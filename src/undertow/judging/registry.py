"""Well-known public classifiers: how each is asked and how its answer is read.

The weights are named in params.yaml, at a pinned revision or in a folder. A template is not
shipped where it is the author's text: it stands on the model's card and is given as a file.
"""

from typing import NamedTuple

from undertow.config import ClassifierFormat, ClassifierJudgeSettings
from undertow.errors import ConfigError


class Entry(NamedTuple):
    """A format with where its weights and its template are found."""

    format: ClassifierFormat
    repo: str
    licence: str
    template_on: str | None = None  # where the template stands that is not shipped


REGISTRY = {
    # Trained to say Yes or No to "is this an instance of the behaviour" (arXiv:2402.04249).
    "harmbench": Entry(
        ClassifierFormat(style="generative", values={"Yes": 1.0, "No": 0.0}),
        repo="cais/HarmBench-Llama-2-13b-cls",
        licence="MIT; Llama 2 Community License",
        template_on="the model card of cais/HarmBench-Llama-2-13b-cls, with {prompt} for the "
        "behavior and {response} for the generation",
    ),
    # The chat template that comes with the tokenizer holds the whole instruction; the first word
    # of the answer is the verdict (arXiv:2312.06674).
    "llama-guard": Entry(
        ClassifierFormat(
            style="generative", answer_prefix="\n\n", values={"unsafe": 1.0, "safe": 0.0}
        ),
        repo="meta-llama/Llama-Guard-3-8B",
        licence="Llama 3.1 Community License",
    ),
    # A fine-tuned Gemma that answers 1 to 5; the score is the expected answer, scaled to 0-1
    # (arXiv:2402.10260). Its weights are an adapter: merge it into the base before use.
    "strongreject": Entry(
        ClassifierFormat(
            style="generative", values={"1": 0.0, "2": 0.25, "3": 0.5, "4": 0.75, "5": 1.0}
        ),
        repo="qylu4156/strongreject-15k-v1",
        licence="Gemma Terms of Use",
        template_on="strong_reject/evaluate.py of the strong_reject package, with {prompt} and "
        "{response}",
    ),
    # A sequence classifier of refusals, which looks at the response alone.
    "rejection": Entry(
        ClassifierFormat(
            style="sequence", template="{response}", values={"NORMAL": 1.0, "REJECTION": 0.0}
        ),
        repo="ProtectAI/distilroberta-base-rejection-v1",
        licence="Apache-2.0",
    ),
}


def format_of(settings: ClassifierJudgeSettings, template: str | None) -> ClassifierFormat:
    """The format that the settings name, with the template from their file.

    Raises ConfigError for an unknown name, and for a format whose template has to be given.
    """
    if isinstance(settings.format, ClassifierFormat):
        chosen, template_on = settings.format, None
    elif entry := REGISTRY.get(settings.format):
        chosen, template_on = entry.format, entry.template_on
    else:
        raise ConfigError(
            f"judging.judge.format: {settings.format!r} is not in the registry",
            f"write one of: {', '.join(REGISTRY)}; or write the format itself",
        )
    if template is not None:
        chosen = chosen.model_copy(update={"template": template})
    if chosen.template is None and template_on is not None:
        raise ConfigError(
            f"the format {settings.format} needs its template",
            f"copy it from {template_on}, into a file, and set judging.judge.template_file",
        )
    if chosen.template is not None and "{response}" not in chosen.template:
        raise ConfigError(
            "the classifier's template has no {response}",
            "write {prompt} and {response} where the two texts belong",
        )
    return chosen
