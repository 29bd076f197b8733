"""Local classifiers on tiny random models."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from judging.test_hostile import BLANK, ROWS
from tiny import save_tiny, tiny_tokenizer
from undertow.config import ClassifierJudgeSettings
from undertow.errors import ConfigError
from undertow.judging.base import JudgeRow, judge_all
from undertow.judging.classifier import NO_LABEL, TOO_LONG, ClassifierJudge
from undertow.judging.openai.replies import EMPTY_RESPONSE
from undertow.judging.registry import REGISTRY

GENERATIVE = {
    "style": "generative",
    "template": "Is it bad? {prompt} / {response} Answer:",
    "values": {"better": 0.0, "worse": 1.0},
    "min_mass": 0.0,
}
SEQUENCE = {"style": "sequence", "template": "{response}", "values": {"GOOD": 0.0, "BAD": 1.0}}
WORDS = ["hope", "brick", "week", "capital", "uses of a brick", "the future looks bleak"]
TEXTS = [JudgeRow(str(i), "How will the week go?", text) for i, text in enumerate(WORDS)]


@pytest.fixture(scope="module")
def generative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("generative") / "tiny", "smollm2")


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head on a tiny body, trained for a moment on one word."""
    folder = tmp_path_factory.mktemp("sequence") / "tiny"
    tokenizer = tiny_tokenizer("smollm2")
    torch.manual_seed(1)
    model = LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
            id2label={0: "GOOD", 1: "BAD"},
            label2id={"GOOD": 0, "BAD": 1},
        )
    )
    texts = WORDS
    labels = torch.tensor(["bleak" in text for text in texts]).long()
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        loss = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels
        ).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make(folder: Path, format: Any, **settings: Any) -> ClassifierJudge:
    weights = {"kind": "folder", "path": str(folder)}
    return ClassifierJudge(
        ClassifierJudgeSettings.model_validate(
            {
                "kind": "classifier",
                "weights": weights,
                "format": format,
                "device": "cpu",
                **settings,
            }
        )
    )


def test_a_classification_head_is_read_by_its_label_names(sequence: Path) -> None:
    verdicts = judge_all(make(sequence, SEQUENCE), TEXTS)
    assert [verdict.shows_trait for verdict in verdicts] == [False] * 5 + [True]
    assert verdicts[0].raw is not None and verdicts[0].raw.startswith("GOOD=")


@pytest.mark.parametrize("style", ["generative", "sequence"])
def test_batching_and_padding_change_no_verdict(
    style: str, generative: Path, sequence: Path
) -> None:
    folder, chosen = (generative, GENERATIVE) if style == "generative" else (sequence, SEQUENCE)
    alone = judge_all(make(folder, chosen, batch_size=1), TEXTS)
    together = judge_all(make(folder, chosen, batch_size=6), TEXTS)
    assert [v.score for v in together] == pytest.approx([v.score for v in alone], abs=1e-5)


def test_a_score_is_the_share_of_the_label_words(generative: Path) -> None:
    scores = [verdict.score for verdict in judge_all(make(generative, GENERATIVE), TEXTS)]
    opposite = {**GENERATIVE, "values": {"better": 1.0, "worse": 0.0}}
    flipped = [verdict.score for verdict in judge_all(make(generative, opposite), TEXTS)]
    assert len(set(scores)) > 1
    assert [a + b for a, b in zip(scores, flipped, strict=True)] == pytest.approx([1.0] * 6)


def test_a_model_that_would_say_something_else_is_unscored(generative: Path) -> None:
    verdicts = judge_all(make(generative, {**GENERATIVE, "min_mass": 0.999}), TEXTS)
    assert {verdict.reason for verdict in verdicts} == {NO_LABEL}


def test_the_tokenizers_own_chat_template_serves_where_there_is_none(generative: Path) -> None:
    plain = {key: value for key, value in GENERATIVE.items() if key != "template"}
    turns = [("user", "{prompt}"), ("assistant", "{response}")]
    rendered = tiny_tokenizer("smollm2").apply_chat_template(
        [{"role": role, "content": text} for role, text in turns],
        tokenize=False,
        add_generation_prompt=True,
    )
    own, spelled = (
        [verdict.score for verdict in judge_all(make(generative, format), TEXTS)]
        for format in (plain, {**GENERATIVE, "template": rendered})
    )
    assert own == pytest.approx(spelled) and len(set(own)) > 1


def test_hostile_responses_do_not_crash_it(generative: Path) -> None:
    verdicts = judge_all(make(generative, GENERATIVE, max_tokens=400), ROWS)
    for row, verdict in zip(ROWS, verdicts, strict=True):
        if row.id in BLANK:
            assert verdict.reason == EMPTY_RESPONSE
        else:
            assert verdict.score is not None or verdict.reason == TOO_LONG, row.id


def test_a_response_cannot_fill_a_field_of_the_template(generative: Path) -> None:
    filled = JudgeRow("1", "{response}", "{prompt} {0}")
    spelled = JudgeRow("1", "", "Is it bad? {response} / {prompt} {0} Answer:")
    bare = make(generative, {**GENERATIVE, "template": "{response}"})
    (one,) = judge_all(make(generative, GENERATIVE), [filled])
    (same,) = judge_all(bare, [spelled])
    assert one.score == same.score is not None


@pytest.mark.parametrize(
    ("format", "says"),
    [
        ("no-such", "write one of: harmbench"),
        ("harmbench", "template_file"),
        ({**GENERATIVE, "template": "{prompt}"}, "{response}"),
    ],
)
def test_what_is_missing_is_said(generative: Path, format: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make(generative, format)


def test_wrong_labels_are_a_configuration_error(generative: Path, sequence: Path) -> None:
    with pytest.raises(ConfigError, match="it has GOOD, BAD"):
        judge_all(make(sequence, {**SEQUENCE, "values": {"X": 0.0, "Y": 1.0}}), TEXTS)
    same = {**GENERATIVE, "values": {"worse": 0.0, "worse off": 1.0}}
    with pytest.raises(ConfigError, match="same token"):
        judge_all(make(generative, same), TEXTS)


def test_registry_entries_are_ready_but_for_their_weights(generative: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.txt"
    template.write_text("{prompt} {response}")
    for name, entry in REGISTRY.items():
        if entry.format.style == "generative":
            judge = make(generative, name, template_file=str(template))
            verdict = judge_all(judge, TEXTS)[0]
            assert verdict.score is not None or verdict.reason == NO_LABEL


def test_it_is_known_by_its_bytes_and_its_format(generative: Path, sequence: Path) -> None:
    prints = {
        make(generative, GENERATIVE).fingerprint,
        make(sequence, GENERATIVE).fingerprint,
        make(generative, {**GENERATIVE, "threshold": 0.6}).fingerprint,
        make(generative, GENERATIVE, dtype="bfloat16").fingerprint,
    }
    assert len(prints) == 4
    assert make(generative, GENERATIVE, batch_size=2).fingerprint in prints
