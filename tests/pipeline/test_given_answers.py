"""Answers of another engine take the place of asking, are checked first, and DVC leaves them be."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repository import Repository, tiny_params
from undertow.errors import DataError
from undertow.pipeline import steer
from undertow.study.layout import Study

pytestmark = pytest.mark.whole

TEACHER = ("--model", "tiny-qwen2", "--arm", "trait_1", "--seed", "0")
FOLDER = Path("results/cells/tiny-qwen2/trait_1/0")
Row = dict[str, Any]


def greedy(folder: Path, **sections: Any) -> dict[str, Any]:
    params = tiny_params(folder / "models", **sections)
    params["grid"] = {"models": ["tiny-qwen2"], "arms": ["trait_0", "trait_1"], "seeds": [0]}
    params["carrier"]["temperature"] = 0.0
    params["tracking"]["enabled"] = False
    return params


def rows_of(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def as_answers(folder: Path, sets: dict[str, str]) -> list[Row]:
    """What a stage wrote, as another engine would hand it in: set -> file."""
    return [
        {
            "id": f"{name}/{row['id']}",
            "prompt": row["prompt"],
            "response": row["response"],
            "finish": row["finish"],
            "completion_tokens": row["tokens"] + (row["finish"] == "stop"),
        }
        for name, file in sets.items()
        for row in rows_of(folder / file)
    ]


STEER = {"carrier": "carrier.jsonl", "evaluation": "teacher.jsonl", "benign": "benign.jsonl"}
STUDENT = {"evaluation": "student.jsonl", "benign": "benign.jsonl"}
BESIDE = (*STUDENT.values(), "fit.jsonl", "adapter/adapter_model.safetensors")
HEADER = {"engine": "other 1.0", "settings": {"dtype": "float32"}}


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A checkout in which the teacher has answered here."""
    folder = tmp_path_factory.mktemp("answered")
    repository = Repository(folder / "checkout", greedy(folder))
    for command in (["fetch", *TEACHER[:2]], ["direction", *TEACHER[:2]], ["steer", *TEACHER]):
        repository.cli(*command)
    return repository


@pytest.fixture
def rows(answered: Repository) -> list[Row]:
    return as_answers(answered.root / FOLDER / "steer", STEER)


def refused(repository: Repository, path: Path, **how: Any) -> str:
    """What is said of a file that cannot be taken; nothing is kept of it."""
    study = Study.open(repository.root)
    cell = study.params.cell("tiny-qwen2", "trait_1", 0)
    with pytest.raises(DataError) as caught:
        steer.take(study, cell, path, how.get("of"), without_model=False)
    assert not study.layout.answers.exists()
    return str(caught.value)


def other(rows: list[Row], number: int, **changes: Any) -> None:
    rows[number] |= changes


BAD: dict[str, tuple[Callable[[list[Row]], None], str]] = {
    "missing": (lambda rows: rows.pop(3), "no answer to carrier/"),
    "unknown": (lambda rows: other(rows, 2, id="carrier/x"), "line 3: 'carrier/x' is no question"),
    "doubled": (lambda rows: rows.append(rows[0]), "was answered in line 1 already"),
    "prompt": (
        lambda rows: other(rows, 1, prompt="Hm?"),
        "line 2: carrier/benign-0002 has another",
    ),
    "no stop reason": (lambda rows: rows[4].pop("finish"), "line 5: finish must be stop"),
    "stop reason": (lambda rows: other(rows, 4, finish="tool_calls"), "line 5: finish must be"),
    "cut, says stop": (
        lambda rows: other(rows, 0, finish="stop", completion_tokens=9),
        "says stop, and has all 8 tokens",
    ),
    "cut early": (
        lambda rows: other(rows, 0, finish="length", completion_tokens=5),
        "was cut off after 5 tokens, and 8 were allowed",
    ),
    "too long": (lambda rows: other(rows, 0, completion_tokens=90), "tokens, and 8 were allowed"),
    "no tokens": (lambda rows: rows[0].pop("completion_tokens"), "neither tokens nor"),
    "sampled": (lambda rows: other(rows, 6, temperature=0.7), "line 7: carrier/benign-0007 was"),
    "rendered": (lambda rows: other(rows, 0, prompt_tokens=2), "read a prompt of 2 tokens"),
    "two engines": (lambda rows: other(rows, 5, engine="x"), "line 6: another engine"),
    "no rows": (lambda rows: rows.clear(), "it holds no answer"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_answer_to_what_was_asked_is_refused_by_line(answered, rows, tmp_path, name):
    change, said = BAD[name]
    change(rows)
    text = refused(answered, write(tmp_path / "answers.jsonl", rows))
    assert said in text
    assert "python cli.py questions --model tiny-qwen2" in text


def test_lines_that_are_no_json_objects_are_named_and_all_at_once(answered, rows, tmp_path):
    path = write(tmp_path / "answers.jsonl", rows)
    lines = path.read_text().split("\n")
    lines[2], lines[4], lines[6] = '{"id": "carrier/', "[1, 2]", '"text"'
    path.write_text("\n".join(lines))
    text = refused(answered, path)
    assert all(f"line {number}: not a JSON object" in text for number in (3, 5, 7))
    path.write_bytes(b'{"id": "\xe9"}\n')
    assert f"{path}:1 is not UTF-8" in refused(answered, path)
    assert "cannot be read" in refused(answered, tmp_path / "absent.jsonl")


def test_a_file_cut_off_in_its_last_line_is_refused(answered, rows, tmp_path):
    path = write(tmp_path / "answers.jsonl", rows)
    path.write_text(path.read_text()[:-9])
    assert f"line {len(rows)}: not a JSON object" in refused(answered, path)


def manifest(root: Path, stage: str) -> Row:
    return json.loads((root / FOLDER / stage / "manifest.json").read_text())


def test_dvc_leaves_given_answers_be_and_a_later_run_takes_the_same(tmp_path: Path):
    params = greedy(tmp_path)
    repository = Repository(tmp_path / "checkout", params)
    repository.init()
    root = repository.root
    for stage in ("fetch@tiny-qwen2", "direction@tiny-qwen2", "steer@tiny-qwen2-trait_1-0"):
        repository.dvc("repro", "--single-item", stage)
    written = {name: (root / FOLDER / "steer" / name).read_bytes() for name in STEER.values()}
    rows = as_answers(root / FOLDER / "steer", STEER)
    file = write(tmp_path / "answers.jsonl", [HEADER, *rows])

    repository.cli("steer", *TEACHER, "--answers", str(file))
    # Greedily, another engine that says the same makes the same cell, margins and likelihoods too.
    for name, before in written.items():
        assert (root / FOLDER / "steer" / name).read_bytes() == before, name
    given = manifest(root, "steer")["given"]
    assert given.pop("sha256")
    assert given == {
        "of": "teacher",
        "file": "data/answers/tiny-qwen2/trait_1/0/steer.jsonl",
        "engine": "other 1.0",
        "settings": {"dtype": "float32"},
        "reason": None,
    }
    assert manifest(root, "steer")["costs"]["tokens_generated"] == 0
    assert (root / "data" / "answers.dvc").exists()

    # Another answer, which our engine would not have given.
    rows[0] |= {"response": "elsewhere", "finish": "stop", "completion_tokens": 3}
    line_end = {"response": "one\u2028two\x85", "finish": "stop", "completion_tokens": 4}
    rows[1] |= line_end
    write(file, [HEADER, *rows])
    repository.cli("steer", *TEACHER, "--answers", str(file))
    assert "Running stage 'steer@tiny-qwen2-trait_1-0'" not in repository.dvc("repro")
    carrier = rows_of(root / FOLDER / "steer" / "carrier.jsonl")
    assert [row["response"] for row in carrier[:2]] == ["elsewhere", "one\u2028two\x85"]
    cell = json.loads((root / FOLDER / "plain/judge/cell.json").read_text())
    assert cell["given"]["teacher"]["engine"] == "other 1.0"

    # The stage is due for another reason: the answers that were given are what it takes.
    repository.dvc("repro", "--force", "--single-item", "steer@tiny-qwen2-trait_1-0")
    assert rows_of(root / FOLDER / "steer" / "carrier.jsonl") == carrier

    said = "teachers of trait_1 in other 1.0; all others in this study's engine"
    assert said in " ".join(repository.cli("results").stdout.split())
    assert "trait_1 in other 1.0" in (root / "results" / "report.html").read_text()

    # Taken away: DVC does not look, run-cells does.
    (root / given["file"]).unlink()
    told = repository.cli("run-cells", "--model", "tiny-qwen2").stdout
    assert told.startswith("3 stages run, 3 recorded")
    assert (root / FOLDER / "steer" / "carrier.jsonl").read_bytes() == written["carrier.jsonl"]
    assert manifest(root, "steer")["given"] is None


def copy_of(answered: Repository, folder: Path) -> Repository:
    """A checkout of its own with the same results."""
    repository = copy.copy(answered)
    repository.root = folder / "checkout"
    shutil.copytree(answered.root, repository.root, symlinks=True)
    return repository


def test_the_carrier_alone_may_come_from_elsewhere(answered, rows, tmp_path):
    repository = copy_of(answered, tmp_path)
    before = (repository.root / FOLDER / "steer" / "teacher.jsonl").read_bytes()
    carrier = [row for row in rows if row["id"].startswith("carrier/")]
    carrier[0] |= {"response": "<think>well</think>elsewhere"}
    file = write(tmp_path / "carrier.jsonl", carrier)
    said = repository.cli("steer", *TEACHER, "--answers", str(file), expect=1).stderr
    assert "no answer to evaluation/" in said
    repository.cli("steer", *TEACHER, "--answers", str(file), "--of", "carrier")
    first = rows_of(repository.root / FOLDER / "steer" / "carrier.jsonl")[0]
    assert (first["response"], first["thought"]) == ("elsewhere", True)
    assert (repository.root / FOLDER / "steer" / "teacher.jsonl").read_bytes() == before
    given = manifest(repository.root, "steer")["given"]
    assert (given["of"], given["engine"], given["settings"]) == ("carrier", None, None)
    assert given["reason"] == "the file does not name engine or settings"


def test_answers_are_not_taken_once_what_they_answer_has_changed(answered, rows, tmp_path):
    repository = copy_of(answered, tmp_path)
    file = write(tmp_path / "answers.jsonl", [HEADER, *rows])
    repository.cli("steer", *TEACHER, "--answers", str(file))
    params = repository.params
    repository.write_params(params | {"prompting": {"system": "Be brief."}})
    said = repository.cli("steer", *TEACHER, expect=1).stderr
    assert "what steer asks has changed" in said
    assert "rm " in said
    repository.write_params(params)
    direction = repository.root / "results/directions/tiny-qwen2/direction.safetensors"
    direction.write_bytes(direction.read_bytes()[:-4] + bytes(4))
    assert "another direction" in repository.cli("steer", *TEACHER, expect=1).stderr
    kept = repository.root / "data/answers/tiny-qwen2/trait_1/0/steer.jsonl"
    assert json.loads(kept.read_text().split("\n")[0])["engine"] == "other 1.0"


def test_without_the_model_margins_are_unknown_and_say_why(answered, rows, tmp_path):
    repository = copy_of(answered, tmp_path)
    file = write(tmp_path / "answers.jsonl", [HEADER, *rows])
    repository.cli("steer", *TEACHER, "--answers", str(file), "--without-model")
    repository.cli("steer", *TEACHER)  # as DVC would give it
    written = repository.root / FOLDER / "steer"
    assert all(row["margin"] is None for row in rows_of(written / "teacher.jsonl"))
    assert all(row["nll"] is None for row in rows_of(written / "benign.jsonl"))
    assert "--without-model" in manifest(repository.root, "steer")["no_margin"]
    control = ("--model", "tiny-qwen2", "--arm", "trait_0", "--seed", "0")
    repository.cli("steer", *control)
    for stage in ("distill", "judge"):
        repository.cli(stage, *TEACHER)
        repository.cli(stage, *control)
    repository.cli("report")
    said = " ".join(repository.cli("results").stdout.split())
    assert "The margins of the teacher of trait_1 are unknown" in said
    found = json.loads((repository.root / "results/summary.json").read_text())
    arm = next(arm for arm in found["arms"] if arm["arm"] == "trait_1")
    assert arm["margin"]["tau"]["value"] is None
    assert arm["rate"]["teacher_shift"]["value"] is not None


def test_a_student_answers_elsewhere_between_training_and_reading(answered, tmp_path):
    repository = copy_of(answered, tmp_path)
    root = repository.root
    repository.cli("distill", *TEACHER)
    written = {name: (root / FOLDER / "plain/distill" / name).read_bytes() for name in BESIDE}
    rows = as_answers(root / FOLDER / "plain/distill", STUDENT)
    file = write(tmp_path / "answers.jsonl", [HEADER, *rows])
    said = repository.cli("distill", *TEACHER, "--answers", str(file), expect=1).stderr
    assert "--training-only" in said
    told = repository.cli("distill", *TEACHER, "--training-only").stderr
    assert "adapter" in told
    repository.cli("distill", *TEACHER, "--answers", str(file))
    for name, before in written.items():
        assert (root / FOLDER / "plain/distill" / name).read_bytes() == before, name
    assert manifest(root, "plain/distill")["given"]["of"] == "student"
    # Training is the same on this machine, so its answers are still this student's.
    repository.cli("distill", *TEACHER)
    assert manifest(root, "plain/distill")["given"]["engine"] == "other 1.0"


def test_answers_that_were_not_pulled_stop_the_stage(answered, tmp_path):
    repository = copy_of(answered, tmp_path)
    (repository.root / "data" / "answers.dvc").write_text("outs: []\n")
    said = repository.cli("steer", *TEACHER, expect=1).stderr
    assert "was not pulled" in said
    assert "dvc pull" in said
