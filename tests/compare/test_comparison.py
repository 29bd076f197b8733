"""What a comparison says, on synthetic studies under git with a hand-made DVC cache."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from compare.locked import LockedStudy, git
from factories import make_params
from repository import ROOT
from undertow.analysis.summarise import summarise
from undertow.analysis.summary import Summary
from undertow.compare import computed
from undertow.compare.comparison import compare
from undertow.compare.markdown import comparison_markdown
from undertow.compare.records import Comparison
from undertow.compare.revisions import open_revision
from undertow.config import Params
from undertow.errors import ConfigError, DataError
from undertow.lineage.objects import Cache
from undertow.study.files import write_json
from undertow.study.layout import Layout
from undertow.study.records import CellResult
from undertow.study.results import read_cell

MODEL = "smollm2-135m"
SMALL = {"models": [MODEL], "arms": ["trait_0", "trait_1", "random_1"]}


@pytest.fixture
def study(tmp_path: Path) -> LockedStudy:
    return LockedStudy(tmp_path / "study")


def between(study: LockedStudy, first: str, second: str | None) -> Comparison:
    return compare(open_revision(study.root, first), open_revision(study.root, second))


def rewrite(study: LockedStudy, params: Params, change: object) -> None:
    """Let `change` make another result of every cell that lies in results/."""
    for cell in params.cells():
        path = Layout(study.root).stage(cell, "judge") / "cell.json"
        write_json(path, change(read_cell(Layout(study.root), cell)))  # type: ignore[operator]


def test_results_come_from_the_cache_in_a_fresh_clone(study: LockedStudy):
    params = make_params(**SMALL)
    study.commit("one", params)
    study.forget()
    found = between(study, "one", None)
    assert found.headline.startswith("Nothing changed")
    assert found.cells_unchanged == len(params.cells())
    assert {tau.difference.word for tau in found.taus} == {"same data"}
    assert "Nothing changed" in comparison_markdown(found)


def test_words_follow_the_intervals_alone(study: LockedStudy):
    study.commit("one", make_params(**SMALL))
    moved = make_params(**SMALL)

    def further(result: CellResult) -> CellResult:
        """The student of trait_1 goes far by margin; by verdicts it moves by one prompt."""
        if result.strength != "1" or result.direction != "trait":
            return result
        margins = {
            id: value + 2 + 0.1 * (i % 3)
            for i, (id, value) in enumerate(result.student.margins.items())
        }
        verdicts = dict(result.student.verdicts)
        one = next(id for id, shows in verdicts.items() if shows is False)
        student = result.student.model_copy(
            update={"margins": margins, "verdicts": verdicts | {one: True}}
        )
        return result.model_copy(update={"student": student})

    rewrite(study, moved, further)
    found = between(study, "one", None)
    words = {(tau.arm, tau.readout): tau.difference.word for tau in found.taus}
    assert words == {
        ("trait_1", "margin"): "higher",
        ("trait_1", "rate"): "not distinguishable",
        ("random_1", "margin"): "same data",
        ("random_1", "rate"): "same data",
    }
    for tau in found.taus:
        estimate = tau.difference.estimate
        if estimate.value is not None and tau.difference.word in ("higher", "lower"):
            assert not estimate.low <= 0 <= estimate.high
    assert "1 of 2 comparable taus" in found.headline
    assert "trait_1 by margin (higher)" in found.headline
    page = comparison_markdown(found)
    assert "higher: the interval excludes 0" in page
    assert "not distinguishable from noise" in page
    (gone,) = {cell.state for cell in found.cells}
    assert gone == "other readouts"


def test_a_cell_that_was_run_again_and_read_the_same_is_said_to_be_so(study: LockedStudy):
    params = make_params(**SMALL)
    study.commit("one", params)

    def slower(result: CellResult) -> CellResult:
        costs = {
            name: cost.model_copy(update={"seconds": 9.0}) for name, cost in result.costs.items()
        }
        return result.model_copy(update={"costs": costs})

    rewrite(study, params, slower)
    found = between(study, "one", None)
    assert {cell.state for cell in found.cells} == {"same readouts"}
    assert {tau.difference.word for tau in found.taus} == {"same data"}
    assert not found.verdicts
    assert "rests on the same data" in found.headline


def test_a_verdict_that_crossed_a_line_says_whether_the_shift_moved(study: LockedStudy):
    params = make_params(**SMALL)
    study.commit("one", params)

    def nearer(result: CellResult) -> CellResult:
        """Every other verdict of the student of trait_1 is turned off."""
        if result.strength != "1" or result.direction != "trait":
            return result
        control = {id: value < -0.0 for id, value in result.student.margins.items()}
        verdicts = {
            id: bool(shows) and (i % 2 == 0 and not control[id])
            for i, (id, shows) in enumerate(result.student.verdicts.items())
        }
        student = result.student.model_copy(update={"verdicts": verdicts})
        return result.model_copy(update={"student": student})

    rewrite(study, params, nearer)
    found = between(study, "one", None)
    (verdict,) = [v for v in found.verdicts if v.subject == "student"]
    assert (verdict.before, verdict.after) == ("clear of the control", "not clear of the control")
    assert verdict.difference is not None
    said = {"lower": "yes: ", "not distinguishable": "not measurably: "}[verdict.difference.word]
    assert said + "student's shift" in comparison_markdown(found)


def test_parameters_are_compared_with_their_defaults_filled_in(study: LockedStudy):
    study.commit("one", make_params(**SMALL))
    text = (study.root / "params.yaml").read_text()
    assert "weight_decay: 0.0" in text
    (study.root / "params.yaml").write_text(re.sub(r" +weight_decay: 0.0\n", "", text))
    assert between(study, "one", None).params == ()


def test_results_of_other_parameters_do_not_pass_for_results_of_these(study: LockedStudy):
    study.commit("one", make_params(**SMALL))
    text = (study.root / "params.yaml").read_text()
    (study.root / "params.yaml").write_text(text.replace("epochs: 1", "epochs: 3"))
    study.save("two")
    for second in ("two", None):
        found = between(study, "one", second)
        assert [param.key for param in found.params] == ["distillation.epochs"]
        assert len(found.missing) == len(found.cells)
        gap = found.missing[0]
        assert "made with distillation.epochs = 1, params.yaml has 3" in gap.reason
        assert "dvc repro" in gap.remedy
        assert {tau.after for tau in found.taus} == {None}
        assert "No tau can be compared" in found.headline


def test_prompts_pair_by_their_text_and_else_count_as_independent(study: LockedStudy):
    study.commit("one", make_params(**SMALL))
    fewer = make_params(**SMALL, evaluation={"prompts": 30})
    study.commit("two", fewer, salt="x")
    found = between(study, "one", "two")
    margins = [tau for tau in found.taus if tau.readout == "margin"]
    assert {(t.difference.basis, t.difference.prompts) for t in margins} == {("paired", 30)}

    evaluation = study.root / "data/traits/pessimism/evaluation.jsonl"
    evaluation.write_text(evaluation.read_text().replace("Probe", "Another"))
    now = open_revision(study.root, None)
    found = compare(
        open_revision(study.root, "one"),
        replace(now, trait_hash="other"),
    )
    assert {t.difference.basis for t in found.taus if t.after and t.after.value is not None} <= {
        "independent",
        None,
    }
    assert any("share no evaluation prompt" in note for note in found.notes)


def test_another_judge_and_another_trait_are_pointed_out(study: LockedStudy):
    params = make_params(**SMALL)
    study.commit("one", params)
    rewrite(study, params, lambda r: r.model_copy(update={"judge_fingerprint": "another"}))
    assert any("different judges" in note for note in between(study, "one", None).notes)
    other = Params.model_validate(params.model_dump() | {"trait": "optimism"})
    study.commit("two", other)
    found = between(study, "one", "two")
    assert {tau.difference.estimate.reason for tau in found.taus} == {
        "the two sides follow different traits"
    }


def test_a_cell_without_a_result_leaves_the_other_arms_alone(study: LockedStudy):
    params = make_params(**SMALL)
    study.commit("one", params)
    study.forget()
    lock = (study.root / "dvc.lock").read_text()
    head = lock.split(f"path: results/cells/{MODEL}/random_1/1/plain/judge", 1)[1]
    hash = re.search(r"md5: (\w+\.dir)", head)[1]
    listing = json.loads((study.cache / "files/md5" / hash[:2] / hash[2:]).read_bytes())
    inner = next(entry["md5"] for entry in listing if entry["relpath"] == "cell.json")
    damaged = study.cache / "files/md5" / inner[:2] / inner[2:]
    damaged.write_bytes(b"{}")
    found = between(study, "one", "one")
    (gap, _) = found.missing
    assert gap.cell == f"{MODEL}/random_1/seed1"
    assert "damaged" in gap.reason and inner in gap.reason
    assert f"dvc fetch --all-commits results/cells/{MODEL}/random_1/1/plain/judge" in gap.remedy
    known = {(tau.arm, tau.before is not None) for tau in found.taus}
    assert known == {("trait_1", True), ("random_1", False)}


def test_results_of_another_version_are_missing_with_the_key_that_differs(study: LockedStudy):
    params = make_params(**SMALL)
    study.commit("one", params)
    path = Layout(study.root).stage(params.cells()[0], "judge") / "cell.json"
    path.write_text(path.read_text().replace('"carrier_rows"', '"carried_rows"'))
    found = between(study, "one", None)
    assert "another version" in found.missing[0].reason
    assert "carrier_rows" in found.missing[0].reason


@pytest.mark.parametrize("file", ["config", "config.local"])
def test_the_cache_is_where_dvc_s_configuration_says(study: LockedStudy, file: str):
    study.commit("one", make_params(**SMALL))
    study.forget()
    (study.root / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (study.root / ".dvc" / file).write_text("[cache]\n    dir = ../elsewhere\n")
    shutil.move(study.cache, study.root / "elsewhere")
    assert Cache(study.root).folder == (study.root / "elsewhere").resolve()
    assert not between(study, "one", None).missing


def test_an_unreadable_parameter_file_is_an_error_that_names_revision_and_key(study: LockedStudy):
    study.commit("one", make_params(**SMALL))
    good = (study.root / "params.yaml").read_text()
    (study.root / "params.yaml").write_text("strengths: [1]\n")
    study.save("old")
    (study.root / "params.yaml").write_text(good)
    done = cli(study, "compare", "old")
    assert done.returncode == 1
    assert "params.yaml at old (" in done.stderr
    assert "strengths: is not a known key" in done.stderr
    assert "cannot read that revision's parameters" in done.stderr
    assert done.stdout == ""
    (study.root / "params.yaml").write_text("a: [\n")
    with pytest.raises(ConfigError, match=r"the working tree cannot be read as YAML 1\.2"):
        open_revision(study.root, None)


def cli(study: LockedStudy, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "cli.py"), *arguments]
    return subprocess.run(command, cwd=study.root, capture_output=True, text=True)


def test_json_is_the_comparison_as_one_object(study: LockedStudy):
    study.commit("one", make_params(**SMALL))
    study.commit("two", make_params(**SMALL, distillation={"epochs": 2}), salt="x")
    done = cli(study, "compare", "one", "two", "--json")
    found = Comparison.model_validate_json(done.stdout)
    assert found == between(study, "one", "two")
    assert cli(study, "compare", "one", "two").stdout == comparison_markdown(found)
    assert done.stderr == ""


@pytest.mark.parametrize("revision", ["nothing", "--all", "one^9", ""])
def test_an_unknown_revision_says_what_to_type(study: LockedStudy, revision: str):
    study.commit("one", make_params(**SMALL))
    with pytest.raises(DataError, match="git does not know the revision"):
        open_revision(study.root, revision)


def test_an_experiment_of_dvc_is_named_like_a_revision(study: LockedStudy):
    """DVC keeps one under refs/exps/<baseline>/<name>, out of sight of git log."""
    root = study.root
    study.commit("first", make_params())

    def ask(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
        return done.stdout.strip()

    head = ask("rev-parse", "HEAD")
    ask("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/lucky-name", head)
    ask("update-ref", "refs/exps/exec/EXEC_HEAD", head)
    found = open_revision(root, "lucky-name")
    assert found.commit == head
    assert "lucky-name" in found.label
    ask("update-ref", f"refs/exps/00/{'1' * 38}/lucky-name", head)
    with pytest.raises(DataError, match="2 experiments are called 'lucky-name'") as caught:
        open_revision(root, "lucky-name")
    assert head[:10] in caught.value.remedy


def test_before_the_first_commit_it_says_so_and_nothing_of_shallow_clones(tmp_path: Path):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    with pytest.raises(DataError, match="nothing is committed") as caught:
        open_revision(tmp_path, "HEAD")
    assert "shallow" not in str(caught.value)


def test_a_folder_without_git_says_so(tmp_path: Path):
    (tmp_path / "params.yaml").write_text("")
    with pytest.raises(DataError, match="not a git repository"):
        open_revision(tmp_path, "HEAD")


def test_text_of_parameters_cannot_break_out_of_the_table(study: LockedStudy):
    study.commit("one", make_params(**SMALL))
    hostile = "a|b\n\n<script>x</script> [link](http://x) `c` \u202e"
    kind = {"judge": {"kind": "double", "marker": hostile}}
    study.commit("two", make_params(**SMALL, judging=kind))
    page = comparison_markdown(between(study, "one", "two"))
    (row,) = [line for line in page.splitlines() if "judging.judge.marker |" in line]
    assert len(re.findall(r"(?<!\\)\|", row)) == 4
    assert "<script>" not in row.replace("\\<", "")
    assert "](" not in row
    assert "\u202e" not in row


def test_git_is_left_as_it_was(study: LockedStudy):
    study.commit("one", make_params(**SMALL))
    before = git(study.root, "status", "--porcelain", "--ignored")
    between(study, "one", None)
    assert git(study.root, "status", "--porcelain", "--ignored") == before


def test_verdicts_that_a_summary_states_are_compared(
    study: LockedStudy, monkeypatch: pytest.MonkeyPatch
):
    study.commit("one", make_params(**SMALL))
    study.commit("two", make_params(**SMALL, distillation={"epochs": 2}), salt="x")
    verdicts = iter(["linear", "threshold"])

    class Stating(Summary):
        doses: tuple[dict[str, Any], ...] = ()
        contrasts: tuple[dict[str, Any], ...] = ()

    def summarised(params: Params, grid: Any) -> Stating:
        plain = {
            key: value for key, value in summarise(params, grid) if key in Summary.model_fields
        }
        about = {"model": MODEL, "arm": "trait_1", "readout": "rate", "seed": None}
        return Stating(
            **plain
            | {
                "doses": ({"model": MODEL, "x": "strength", "verdict": next(verdicts)},),
                "contrasts": ({**about, "against": "random", "verdict": "clear"},),
            }
        )

    monkeypatch.setattr(computed, "summarise", summarised)
    found = between(study, "one", "two")
    (dose,) = [verdict for verdict in found.verdicts if verdict.subject.startswith("dose")]
    assert (dose.before, dose.after) == ("linear", "threshold")
    assert (
        f"| {MODEL} | all | dose-response over strength | linear | threshold | - |"
        in comparison_markdown(found)
    )


def test_a_revision_from_before_there_were_recipes_is_read_where_its_files_lay(study: LockedStudy):
    params = make_params(**SMALL)
    study.commit("new", params)
    lock, written = study.root / "dvc.lock", study.root / "params.yaml"
    lock.write_text(re.sub(r"/plain/(distill|judge)", r"/\1", lock.read_text()))
    raw = yaml.safe_load(written.read_text())
    del raw["recipes"], raw["grid"]["students"]
    raw["cross"] = {"pairs": [{"student": "a", "teacher": MODEL}], "arms": ["trait_0"]}
    written.write_text(yaml.safe_dump(raw))
    shutil.rmtree(study.root / "results")
    study.save("old")
    found = between(study, "old", "new")
    assert (found.missing, found.cells_unchanged) == ((), len(params.cells()))
    assert any("calls students of another base cross" in note for note in found.notes)


def test_a_summary_of_an_older_method_says_that_the_method_changed(study: LockedStudy):
    params = make_params(**SMALL)
    study.commit("one", params)
    results = {cell: read_cell(Layout(study.root), cell) for cell in params.cells()}
    path = Layout(study.root).summary
    now = summarise(params, results).model_dump(mode="json")
    write_json(path, now)
    assert not any("method" in note for note in between(study, "one", None).notes)
    older = {key: value for key, value in now.items() if key != "method"}
    write_json(path, older)
    assert Summary.model_validate(older).method == 1
    found = between(study, "one", None)
    (note,) = [note for note in found.notes if "method" in note]
    assert note.startswith("The method changed, not the data: summary.json of the working tree")
    assert found.headline.startswith("Nothing changed")
    assert "The method changed, not the data" in comparison_markdown(found)
    write_json(path, {**now, "method": 3})
    (note,) = [note for note in between(study, "one", None).notes if "method" in note]
    assert "computed by method 3, this version's is 4." in note


def test_further_control_students_are_part_of_the_comparison(study: LockedStudy):
    study.commit("one", make_params(**SMALL))
    more = make_params(**SMALL, grid={"control_seeds": [7, 8]})
    study.commit("two", more)
    found = between(study, "one", "two")
    (tau,) = [t for t in found.taus if (t.arm, t.readout) == ("trait_1", "margin")]
    assert tau.difference.basis == "paired"
    assert tau.before is not None and tau.after is not None
    assert tau.difference.estimate.value == pytest.approx(tau.after.value - tau.before.value)
