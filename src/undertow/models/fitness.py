"""Whether a checkpoint can be studied, from its configuration and tokenizer alone.

Needs no weights, so that what cannot work is refused before they are downloaded.
"""

from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from undertow.config import Prompting
from undertow.errors import UndertowError
from undertow.models.families import FamilyLayout, layout_of_config
from undertow.models.loading import load_tokenizer, read_config
from undertow.models.prompts import Ends, ends_named, reads, render, thinks
from undertow.study.records import Record

PROMPT = "What is the capital of France?"


class Fitness(Record):
    """How a checkpoint is treated; what it lacks is refused instead."""

    family: str
    shift: str
    ends: tuple[str, ...]
    closing: str
    date: str
    thinking: str
    window: str
    rows: str

    def lines(self) -> str:
        """For people: one line a fact."""
        facts = {
            "family": self.family,
            "shift": self.shift,
            "an answer ends at": ", ".join(self.ends),
            "a student learns to end with": self.closing,
            "date in the prompt": self.date,
            "thinking": self.thinking,
            "attention looks back": self.window,
            "training rows": self.rows,
        }
        width = max(map(len, facts))
        return "\n".join(f"{name:{width}}  {fact}" for name, fact in facts.items())


def examine(folder: Path, prompting: Prompting) -> Fitness:
    """How the checkpoint in `folder` is prompted, steered and trained.

    Raises UndertowError with what to do where its family is not known, where it has no chat
    template or none that can render `prompting`, or where thinking cannot be switched off.
    """
    config = read_config(folder)
    layout = layout_of_config(config)
    tokenizer = load_tokenizer(folder)
    if thinks(render(tokenizer, PROMPT, prompting)):
        raise UndertowError(
            "the chat template opens a think block in every prompt and knows no way not to, so "
            "answers would be thought aloud and cut off",
            "use a checkpoint that also answers without thinking",
        )
    configs: list[Any] = [config]
    if (folder / "generation_config.json").exists():
        configs.append(GenerationConfig.from_pretrained(folder, local_files_only=True))
    return _described(layout, tokenizer, ends_named(tokenizer, *configs), prompting)


def _described(
    layout: FamilyLayout, tokenizer: PreTrainedTokenizerBase, ends: Ends, prompting: Prompting
) -> Fitness:
    names = tokenizer.convert_ids_to_tokens(sorted(ends.every))
    windows = [window for window in layout.windows if window is not None]
    found = reads(tokenizer, prompting)
    shift = "a bias on mlp.down_proj"
    if not layout.plain_stream:
        shift = "an addition behind the block: a norm follows its MLP"
    elif layout.residual_multiplier != 1:
        shift += f", divided by the block's multiplier {layout.residual_multiplier}"
    return Fitness(
        family=layout.family.title,
        shift=shift,
        ends=tuple(map(str, names)),
        closing=str(tokenizer.convert_ids_to_tokens(ends.closing)),
        date=f"{prompting.date} (prompting.date)" if found.date else "none",
        thinking="switched off in the template" if found.thinking else "the template knows none",
        window=f"{min(windows)} tokens in {len(windows)} blocks" if windows else "all the way",
        rows="padded: attention is capped" if layout.attention_cap else "packed on a GPU",
    )
