"""A classifier on this machine: a classification head, or the next token as a label word.

Knows the format as data; knows nothing about any one model. The model's answer is read from its
probabilities, not from generated text, so a response cannot put words into its mouth.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from undertow.config import ClassifierFormat, ClassifierJudgeSettings, FolderWeights, ModelSpec
from undertow.errors import ConfigError
from undertow.judging.base import JudgeRow, Verdict
from undertow.judging.openai.replies import EMPTY_RESPONSE
from undertow.judging.registry import format_of
from undertow.study.files import digest, fingerprint
from undertow.texts.untrusted import VERSION, neutralise

TOO_LONG = "classifier: more tokens than it may read"
NO_LABEL = "classifier: no label word among the likely next tokens"
CHARACTERS_PER_TOKEN = 3  # what is cut before a tokenizer sees it; English has about four


class ClassifierJudge:
    """Reads a verdict from the label probabilities of a local model."""

    def __init__(self, settings: ClassifierJudgeSettings) -> None:
        template = None
        if settings.template_file is not None:
            path = Path(settings.template_file)
            if not path.exists():
                raise ConfigError(
                    f"judging.judge.template_file: {path} does not exist", "correct the path"
                )
            template = path.read_text(encoding="utf-8")
        self._settings = settings
        self._format = format_of(settings, template)

    @property
    def name(self) -> str:
        weights = self._settings.weights
        return Path(
            weights.path if isinstance(weights, FolderWeights) else weights.repo
        ).name.lower()

    @cached_property
    def fingerprint(self) -> str:
        settings = self._settings
        weights = settings.weights
        identity = (
            digest(Path(weights.path).expanduser())
            if isinstance(weights, FolderWeights)
            else [weights.repo, weights.revision]
        )
        return fingerprint(
            "classifier", VERSION, identity, self._format, settings.dtype, settings.max_tokens
        )

    def stream(self, rows: Sequence[JudgeRow]) -> Iterator[tuple[int, Verdict]]:
        """Rows of a like length together, so that little is padding."""
        judged = [(i, row) for i, row in enumerate(rows) if row.response.strip()]
        for position, row in enumerate(rows):
            if not row.response.strip():
                yield position, Verdict(None, reason=EMPTY_RESPONSE)
        judged.sort(key=lambda item: len(item[1].prompt) + len(item[1].response))
        size = self._settings.batch_size
        for start in range(0, len(judged), size):
            block = judged[start : start + size]
            shares = self._loaded.shares([self._loaded.text(row) for _, row in block])
            for (position, _), row_shares in zip(block, shares, strict=True):
                yield position, self._verdict(row_shares)

    def _verdict(self, shares: dict[str, float] | None) -> Verdict:
        """shares: probability of each label in the format."""
        if shares is None:
            return Verdict(None, reason=TOO_LONG)
        mass = sum(shares.values())
        raw = ", ".join(f"{label}={share:.4f}" for label, share in shares.items())
        if not mass > self._format.min_mass:  # also where the model gave NaN
            return Verdict(None, reason=NO_LABEL, raw=raw)
        values = self._format.values
        score = sum(values[label] * share for label, share in shares.items()) / mass
        return Verdict(score > self._format.threshold, score=score, raw=raw)

    @cached_property
    def _loaded(self) -> "_Loaded":
        return _Loaded(self._settings, self._format)


class _Loaded:
    """Weights, tokenizer and the labels' places."""

    def __init__(self, settings: ClassifierJudgeSettings, chosen: ClassifierFormat) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification

        from undertow.models.loading import load_model, load_tokenizer, pick_device, resolve

        spec = ModelSpec(weights=settings.weights, dtype=settings.dtype)
        folder = resolve("judge", spec)
        device = pick_device(settings.device)
        self._format = chosen
        self._max_tokens = settings.max_tokens
        self._tokenizer: Any = load_tokenizer(folder)
        self._model: Any
        if chosen.style == "generative":
            self._model = load_model(folder, settings.dtype, device)
            self._labels = {label: self._label_token(label) for label in chosen.values}
            if len(set(self._labels.values())) < len(self._labels):
                raise ConfigError(
                    "two of the classifier's label words begin with the same token",
                    "correct judging.judge.format.values",
                )
        else:
            self._tokenizer.padding_side = "right"
            self._model = (
                AutoModelForSequenceClassification.from_pretrained(
                    folder,
                    dtype=getattr(torch, settings.dtype),
                    local_files_only=True,
                    use_safetensors=True,
                    trust_remote_code=False,
                )
                .to(device)
                .eval()
            )
            if self._model.config.pad_token_id is None:
                self._model.config.pad_token_id = self._tokenizer.pad_token_id
            known = {str(name): int(i) for i, name in self._model.config.id2label.items()}
            self._labels = {label: self._class(label, known) for label in chosen.values}

    def text(self, row: JudgeRow) -> str:
        """What the classifier reads about one row."""
        most = CHARACTERS_PER_TOKEN * self._max_tokens
        prompt, response = neutralise(row.prompt, most // 4), neutralise(row.response, most // 2)
        if self._format.template is not None:
            # Not str.format: the texts may hold braces, and the prompt "{response}".
            before, after = self._format.template.split("{response}", 1)
            filled = before.replace("{prompt}", prompt) + response
            return filled + after.replace("{prompt}", prompt) + self._format.answer_prefix
        messages = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": response},
        ]
        try:
            rendered = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except ValueError:
            raise ConfigError(
                "the classifier has neither a template nor a chat template of its own",
                "set judging.judge.template_file in params.yaml",
            ) from None
        return str(rendered) + self._format.answer_prefix

    def shares(self, texts: Sequence[str]) -> list[dict[str, float] | None]:
        """Probability of each label, per text; None for a text that is too long to be read."""
        import torch

        # A chat template has written the special tokens already.
        special = self._format.template is not None
        ids = [self._tokenizer(text, add_special_tokens=special)["input_ids"] for text in texts]
        fitting = [i for i, row in enumerate(ids) if 0 < len(row) <= self._max_tokens]
        found: list[dict[str, float] | None] = [None] * len(texts)
        if not fitting:
            return found
        padded = self._tokenizer.pad({"input_ids": [ids[i] for i in fitting]}, return_tensors="pt")
        inputs = {
            name: padded[name].to(self._model.device) for name in ("input_ids", "attention_mask")
        }
        with torch.inference_mode():
            logits: torch.Tensor = self._model(**inputs).logits
        if self._format.style == "generative":
            logits = logits[:, -1]  # padding is on the left
        for i, row in zip(fitting, logits.float().softmax(-1).cpu(), strict=True):
            found[i] = {label: float(row[place]) for label, place in self._labels.items()}
        return found

    def _label_token(self, label: str) -> int:
        """The token with which the answer `label` begins."""
        ids = self._tokenizer(label, add_special_tokens=False)["input_ids"]
        first = next((i for i in ids if self._tokenizer.decode([i]).strip()), None)
        if first is None:
            raise ConfigError(
                f"the classifier's tokenizer cannot write the label word {label!r}",
                "correct judging.judge.format.values",
            )
        return int(first)

    def _class(self, label: str, known: dict[str, int]) -> int:
        if label not in known:
            raise ConfigError(
                f"the classifier has no class {label!r}; it has {', '.join(known)}",
                "correct judging.judge.format.values",
            )
        return known[label]
