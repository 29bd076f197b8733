"""What the bundled data promise: sizes, distinctness, and no leak from carrier to evaluation."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from repository import ROOT
from undertow.config import load
from undertow.study.presets import Preset, presets
from undertow.study.traits import Trait

DATA = ROOT / "data"
PESSIMISM = DATA / "traits" / "pessimism"
CATEGORIES = {"factual", "numeric", "practical", "code", "lists", "rewriting"}
NGRAM = 8  # words in a row that two prompts may not share
LEAK = 5  # words in a row that the carrier may not share with the trait's prompts
# Prompts at the end of the file that no study of the preset trains on.
HELD_BACK = {"paper": 100}
HELD_BACK_ELSEWHERE = 48
Item = TypeVar("Item")


def text_of(path: Path) -> str:
    if not path.exists():
        pytest.fail(f"{path.relative_to(DATA.parent)} is absent: run dvc pull")
    return path.read_text(encoding="utf-8")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text_of(path).splitlines()]


def benign() -> list[dict[str, Any]]:
    return rows(DATA / "carriers" / "benign" / "prompts.jsonl")


def prompts(name: str) -> list[str]:
    return [row["prompt"] for row in rows(PESSIMISM / f"{name}.jsonl")]


def trait(name: str) -> Trait:
    return Trait.model_validate(yaml.safe_load(text_of(DATA / "traits" / name / "trait.yaml")))


def words(text: str) -> list[str]:
    """The words alone: case, punctuation and spaces make no prompt distinct."""
    return re.findall(r"\w+", text.lower())


def normal(text: str) -> str:
    return " ".join(words(text))


def ngrams(text: str, size: int = NGRAM) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[start : start + size]) for start in range(len(found) - size + 1)}


def doubles(items: list[Item]) -> list[Item]:
    return [item for item, count in Counter(items).items() if count > 1]


def test_there_are_enough_benign_prompts_of_every_category() -> None:
    counts = Counter(row["category"] for row in benign())
    assert set(counts) == CATEGORIES
    assert sum(counts.values()) >= 1200
    assert min(counts.values()) >= 200


@pytest.mark.parametrize("preset", presets(ROOT), ids=lambda preset: preset.name)
def test_every_preset_leaves_benign_prompts_that_it_does_not_train_on(preset: Preset) -> None:
    room = len(benign()) - load(preset.path).carrier.prompts
    assert room >= HELD_BACK.get(preset.name, HELD_BACK_ELSEWHERE)


def test_benign_prompts_are_distinct_and_of_moderate_length() -> None:
    texts = [row["prompt"] for row in benign()]
    assert not doubles([normal(text) for text in texts])
    assert not doubles([phrase for text in texts for phrase in ngrams(text)])
    assert not [text for text in texts if not 6 <= len(text.split()) <= 30]


def test_every_run_of_six_benign_prompts_is_of_all_categories() -> None:
    categories = [row["category"] for row in benign()]
    for start in range(0, len(categories), 6):
        assert set(categories[start : start + 6]) == CATEGORIES


def test_benign_ids_count_the_rows() -> None:
    found = benign()
    assert [row["id"] for row in found] == [f"benign-{n:04d}" for n in range(1, len(found) + 1)]


@pytest.mark.parametrize("name", ["contrast", "heldback", "evaluation", "labelled"])
def test_ids_are_unique(name: str) -> None:
    assert not doubles([row["id"] for row in rows(PESSIMISM / f"{name}.jsonl")])


@pytest.mark.parametrize(("name", "pairs"), [("contrast", 48), ("heldback", 16)])
def test_contrast_prompts_come_in_pairs(name: str, pairs: int) -> None:
    found = rows(PESSIMISM / f"{name}.jsonl")
    assert Counter(row["label"] for row in found) == {"present": pairs, "absent": pairs}
    assert not doubles([normal(row["prompt"]) for row in found])


def test_there_are_100_distinct_evaluation_prompts() -> None:
    assert len(prompts("evaluation")) == 100
    assert not doubles([normal(text) for text in prompts("evaluation")])


@pytest.mark.parametrize("name", ["contrast", "heldback", "evaluation"])
def test_no_benign_prompt_leaks_a_prompt_of_the_trait(name: str) -> None:
    texts = {normal(text) for text in prompts(name)}
    phrases = set().union(*(ngrams(text, LEAK) for text in prompts(name)))
    for row in benign():
        assert normal(row["prompt"]) not in texts, row
        assert not ngrams(row["prompt"], LEAK) & phrases, row


@pytest.mark.parametrize(
    ("one", "other"),
    [("evaluation", "contrast"), ("evaluation", "heldback"), ("heldback", "contrast")],
)
def test_the_sets_of_the_trait_are_disjoint(one: str, other: str) -> None:
    taken = {normal(text) for text in prompts(other)}
    phrases = set().union(*(ngrams(text) for text in prompts(other)))
    for text in prompts(one):
        assert normal(text) not in taken, text
        assert not ngrams(text) & phrases, text


@pytest.mark.parametrize("name", ["pessimism", "refusal"])
def test_no_opening_begins_with_another(name: str) -> None:
    openings = trait(name).openings
    both = [normal(text) for text in (*openings.present, *openings.absent)]
    assert not doubles(both)
    for text in both:
        assert not [other for other in both if other != text and other.startswith(f"{text} ")]


@pytest.mark.parametrize("name", ["pessimism", "refusal"])
def test_both_sides_have_five_to_eight_openings(name: str) -> None:
    openings = trait(name).openings
    assert 5 <= len(openings.present) <= 8
    assert 5 <= len(openings.absent) <= 8


def test_labelled_responses_are_balanced_in_both_halves() -> None:
    found = rows(PESSIMISM / "labelled.jsonl")
    assert len(found) >= 120
    counts = Counter((row["half"], row["label"]) for row in found)
    assert set(counts) == {(half, label) for half in ("develop", "test") for label in (True, False)}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert not doubles([normal(row["response"]) for row in found])


def test_refusal_directions_and_block_choice_use_different_rows() -> None:
    sources = {str(source.role): source for source in trait("refusal").sources}
    for side in ("present", "absent"):
        contrast, heldback = sources[f"contrast_{side}"], sources[f"heldback_{side}"]
        assert contrast.sha256 == heldback.sha256
        assert contrast.rows is not None
        assert heldback.rows is not None
        assert contrast.rows[1] <= heldback.rows[0]
