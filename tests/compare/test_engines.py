"""Two engines are never compared without a word."""

from pathlib import Path

from compare.locked import LockedStudy
from factories import make_params
from undertow.analysis.answered import answered_elsewhere
from undertow.compare.comparison import compare
from undertow.compare.revisions import open_revision
from undertow.findings.engines import engine_sentences
from undertow.study.files import write_json
from undertow.study.records import CellResult, GivenAnswers

MODEL = "smollm2-135m"
PARAMS = make_params(models=[MODEL], arms=["trait_0", "trait_1", "random_1"], seeds=(0, 1))


def elsewhere(result: CellResult, engine: str | None) -> CellResult:
    given = GivenAnswers(
        of="teacher", file="answers.jsonl", sha256="0", engine=engine, settings=None, reason="?"
    )
    return result.model_copy(update={"given": {"teacher": given}})


def test_a_note_says_where_engines_differ_between_arms_and_between_revisions(tmp_path: Path):
    study = LockedStudy(tmp_path / "study")
    made = study.commit("one", PARAMS)
    before = open_revision(study.root, "one")
    assert not any("engine" in note for note in compare(before, before).notes)
    for cell, result in made.grid.items():
        if cell.arm.name == "trait_1":
            path = made.layout.stage(cell, "judge") / "cell.json"
            write_json(path, elsewhere(result, "vllm 0.26.0"))
    notes = compare(before, open_revision(study.root, None)).notes
    own = "this study's engine"
    assert any(
        note.startswith("In the working tree") and f"trait_0 in {own}, trait_1 in vllm" in note
        for note in notes
    )
    changed = f"The teachers of {MODEL} trait_1 answered in {own} before and in vllm 0.26.0 after"
    assert sum("before and in" in note for note in notes) == 1
    assert any(note.startswith(changed) for note in notes)


def said(made: LockedStudy, chosen: dict[tuple[str, int], str | None]) -> list[str]:
    study = made.commit("one", PARAMS)
    cells = {
        cell: elsewhere(result, chosen[cell.arm.name, cell.seed])
        if (cell.arm.name, cell.seed) in chosen
        else result
        for cell, result in study.grid.items()
    }
    summary = study.summary.model_copy(update={"answered": answered_elsewhere(cells)})
    return list(engine_sentences(summary, MODEL))


def test_a_sentence_names_arms_and_the_seeds_that_are_not_all(tmp_path: Path):
    (text,) = said(
        LockedStudy(tmp_path / "a"),
        {("trait_1", 0): "vllm", ("trait_1", 1): "vllm", ("random_1", 1): None},
    )
    assert "teachers of trait_1 in vllm; random_1 (seed 1) in an engine that is not named" in text
    assert "all others in this study's engine" in text


def test_a_study_that_was_answered_elsewhere_altogether_says_so(tmp_path: Path):
    everyone = {(arm, seed): "vllm" for arm in PARAMS.grid.arms for seed in (0, 1)}
    (text,) = said(LockedStudy(tmp_path / "b"), everyone)
    assert text.endswith("all arms alike, and none in this study's engine.")
    assert said(LockedStudy(tmp_path / "c"), {}) == []
