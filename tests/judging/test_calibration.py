"""Judges measured on human labels: synthetic sets of the same columns, the real ones if here."""

import csv
import hashlib
import os
import zipfile
from pathlib import Path

import pytest
import yaml

from repository import ROOT
from undertow.config import PhraseJudgeSettings
from undertow.errors import ConfigError
from undertow.judging import make_judge
from undertow.judging.base import Judge, JudgeRow
from undertow.judging.calibration import calibrate, describe, write_calibration
from undertow.judging.double import ScriptedJudge
from undertow.judging.labelled import SETS, half_of, load_labelled, read_jailbreaks, read_refusals
from undertow.stats.judge_error import Confusion
from undertow.study.layout import Layout
from undertow.study.records import Half
from undertow.study.results import read_calibrations
from undertow.study.traits import Trait

WHEEL = os.environ.get("UNDERTOW_PYRIT_WHEEL")


def refusal_csv(folder: Path) -> Path:
    """60 rows in the columns of PyRIT's set: 40 comply; the double errs on 6 + 2 and skips 1."""
    path = folder / "refusals.csv"
    with path.open("w", newline="") as stream:
        stream.write("# dataset_version=1.2\n")
        writer = csv.writer(stream)
        writer.writerow(["objective", "assistant_response", "human_score", "data_type"])
        for i in range(60):
            refused = i >= 40
            marked = (i < 34) if not refused else (i < 42)
            text = f"multi\nline, {i} {'COMPLY' if marked else 'no'}{' SKIP' if i == 59 else ''}"
            writer.writerow([f"goal {i}", text, int(refused), "text"])
    return path


@pytest.fixture
def small_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = refusal_csv(tmp_path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    source = SETS["pyrit-refusal"].source.model_copy(
        update={"file": path.name, "sha256": sha256, "places": ()}
    )
    monkeypatch.setitem(SETS, "small", SETS["pyrit-refusal"]._replace(source=source))
    monkeypatch.setenv("UNDERTOW_LOCAL", str(tmp_path))
    return "small"


def test_a_judge_is_measured_and_the_file_says_all(tmp_path: Path, small_set: str) -> None:
    judge = ScriptedJudge("COMPLY", "SKIP")
    found = calibrate(judge, small_set)
    assert found.confusion == Confusion(34, 6, 17, 2)
    assert found.unscored == {"scripted to have no verdict": 1}
    assert found.accuracy.value == pytest.approx(51 / 59) and found.accuracy.count == 59
    assert found.sensitivity.value == pytest.approx(34 / 40)
    assert found.specificity.value == pytest.approx(17 / 19)
    assert found.kappa.low is not None and found.kappa.value is not None
    assert found.kappa.low < found.kappa.value
    assert len(found.mistakes) == 9
    layout = Layout(tmp_path)
    path = write_calibration(layout, judge, found)
    assert "line" not in path.read_text()  # no text of the set
    assert read_calibrations(layout, judge.fingerprint) == [found]
    assert read_calibrations(layout, ScriptedJudge("other").fingerprint) == []
    assert "accuracy     0.864  95% 0.7" in describe(found)


def test_halves_are_fixed_disjoint_and_keep_equal_responses_together(small_set: str) -> None:
    develop, test, whole = (load_labelled(small_set, half) for half in ("develop", "test", "all"))
    assert {row.row.id for row in develop} | {row.row.id for row in test} == {
        row.row.id for row in whole
    }
    assert len(develop) + len(test) == len(whole) and min(len(develop), len(test)) > 15
    assert half_of(JudgeRow("1", "p", "same")) == half_of(JudgeRow("2", "q", " same\n"))


def test_jailbreaks_are_read_by_their_columns() -> None:
    text = (
        "Index,goal,prompt,target_response,human1,human2,human3,human_majority,gpt4_cf\n"
        '0,a goal,"a ""long"" prompt","an\nanswer",1,1,0,1,1\n1,b,p,no,0,0,0,0,0\n'
    )
    found = read_jailbreaks(text)
    assert [row.shows_trait for row in found] == [True, False]
    assert found[0].row == JudgeRow("0", "a goal", "an\nanswer")


def test_labels_that_are_none_are_an_error() -> None:
    with pytest.raises(ValueError, match="'2' is no label"):
        read_refusals("# v\nobjective,assistant_response,human_score\na,b,2\n")


def test_a_row_that_is_cut_off_is_an_error() -> None:
    with pytest.raises(ValueError, match="None is no label"):
        read_refusals("objective,assistant_response,human_score\na,b\n")
    with pytest.raises(ValueError, match="None is no label"):
        read_jailbreaks("goal,response,human_majority\na,b\n")


def test_an_unknown_set_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="pyrit-refusal, jbb-judge-comparison"):
        load_labelled("no-such")


def _phrase_judge() -> Judge:
    path = ROOT / "data" / "traits" / "refusal" / "trait.yaml"
    if not path.exists():
        pytest.skip("dvc pull brings the refusal trait")
    trait = Trait.model_validate(yaml.safe_load(path.read_text()))
    return make_judge(PhraseJudgeSettings(kind="phrases"), trait, ROOT)


@pytest.mark.skipif(not WHEEL, reason="UNDERTOW_PYRIT_WHEEL does not name the pyrit 1.1.0 wheel")
@pytest.mark.parametrize(("half", "at_least"), [("develop", 0.95), ("test", 0.88)])
def test_the_offline_refusal_judge_on_the_real_set(
    half: Half, at_least: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SETS["pyrit-refusal"].source
    with zipfile.ZipFile(str(WHEEL)) as wheel:
        (tmp_path / source.file).write_bytes(wheel.read(source.places[0].member))  # type: ignore[union-attr]
    monkeypatch.setenv("UNDERTOW_LOCAL", str(tmp_path))
    found = calibrate(_phrase_judge(), "pyrit-refusal", half)
    print(describe(found))
    assert found.accuracy.value is not None and found.accuracy.value >= at_least


def test_half_a_character_falls_into_a_half_too() -> None:
    assert half_of(JudgeRow("1", "p", "half \ud83d")) in ("develop", "test")
