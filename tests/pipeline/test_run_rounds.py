"""Later rounds: students become teachers, stage by stage, in one process and by DVC."""

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from losses import loss_on
from repository import Repository, tiny_params
from undertow.study.files import digest

pytestmark = [pytest.mark.whole, pytest.mark.timeout(600)]
MODEL = "tiny-qwen2"
ARMS = ("trait_0", "trait_1")
RUN = ("run-cells", "--model", MODEL)
ROUNDS = [{"student": "round_2", "after": "plain"}, {"student": "round_3", "after": "round_2"}]
THIRD = {"student": "round_4", "after": "round_3"}


def make(folder: Path, rounds: list[dict[str, str]], training: str = "trl") -> Repository:
    params = tiny_params(folder / "models")
    params["grid"] |= {"models": [MODEL], "arms": list(ARMS), "rounds": rounds}
    params["recipes"] = {"plain": {}} | {each["student"]: {} for each in rounds}
    if "round_3" in params["recipes"]:
        params["recipes"]["round_3"] = {"continued": True}
    params["distillation"]["batch_size"] = params["carrier"]["prompts"]  # a step an epoch
    params["models"] = {MODEL: params["models"][MODEL]}
    params["tracking"]["enabled"] = False
    params["runtime"]["training"] = training
    return Repository(folder / "checkout", params)


def of(root: Path, arm: str, student: str) -> Path:
    return root / "results" / "cells" / MODEL / arm / "0" / student


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def status(repository: Repository) -> dict[str, Any]:
    found = json.loads(repository.dvc("status", "--json"))
    return {name: what for name, what in found.items() if not name.startswith(("report", "audit@"))}


def cell(arm: str, student: str) -> tuple[str, ...]:
    return ("--model", MODEL, "--arm", arm, "--seed", "0", "--student", student)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, str]:
    """Three rounds by run-cells, handed to DVC."""
    repository = make(tmp_path_factory.mktemp("rounds"), ROUNDS)
    repository.init()
    return repository, repository.cli(*RUN).stdout


def test_three_rounds_in_one_process_are_dvc_s(ran: tuple[Repository, str]):
    repository, said = ran
    # fetch and direction, and in each of two arms steer, two pass-on, three distill and judge
    assert said == "20 stages run, 20 recorded in dvc.lock\n"
    assert status(repository) == {}
    assert repository.cli(*RUN).stdout == "0 stages run, 0 recorded in dvc.lock\n"
    for arm in ARMS:
        kept = {len(rows(of(repository.root, arm, f"round_{n}") / "carrier/carrier.jsonl"))
                for n in (2, 3)}  # fmt: skip
        assert kept == {len(rows(of(repository.root, arm, "steer") / "carrier.jsonl"))}


def test_dvc_makes_the_same_bytes(ran: tuple[Repository, str], tmp_path: Path):
    whole, _ = ran
    repository = make(tmp_path, ROUNDS)
    repository.init()
    # DVC calls a round by its place in the list.
    repository.dvc("repro", f"judge-round@{MODEL}-trait_1-round1-0")
    for student, stage, name in (
        ("round_2", "carrier", "carrier.jsonl"),
        ("round_3", "carrier", "carrier.jsonl"),
        ("round_3", "distill", "adapter/adapter_model.safetensors"),
        ("round_3", "distill", "student.jsonl"),
        ("round_3", "judge", "verdicts.jsonl"),
    ):
        found, expected = (
            of(root, "trait_1", student) / stage / name for root in (repository.root, whole.root)
        )
        assert found.read_bytes() == expected.read_bytes()


def test_a_later_round_s_text_is_the_student_s_own_and_unsteered(
    ran: tuple[Repository, str], monkeypatch: pytest.MonkeyPatch
):
    from undertow.pipeline.loading import Shelf
    from undertow.pipeline.reading import Reader, Subject
    from undertow.student.adapter import student_of
    from undertow.study.carriers import CarrierData
    from undertow.study.layout import Study

    root = ran[0].root
    monkeypatch.chdir(root)
    study = Study.open(root)
    loaded = Shelf().load(study, MODEL)
    carrier = study.params.carrier
    prompts = CarrierData(study.layout, carrier.name).prompts(carrier.prompts)
    with student_of(loaded.model, of(root, "trait_1", "plain") / "distill/adapter") as student:
        reader = Reader(study, student, loaded.tokenizer, loaded.meter, [Subject("expected", 0)])
        expected = [row.response for row in reader.carrier(prompts)[0]]
    reader.forget()
    written = rows(of(root, "trait_1", "round_2") / "carrier/carrier.jsonl")
    assert [row["response"] for row in written] == expected
    taught = rows(of(root, "trait_1", "steer") / "carrier.jsonl")
    assert [row["prompt"] for row in written] == [row["prompt"] for row in taught]
    assert [row["response"] for row in taught] != expected


@pytest.mark.parametrize("arm", ARMS)
def test_a_continued_round_begins_where_the_one_before_ended(
    ran: tuple[Repository, str], monkeypatch: pytest.MonkeyPatch, arm: str
):
    from undertow.carrier.filter import training_carrier
    from undertow.pipeline.loading import Shelf
    from undertow.student.adapter import student_of
    from undertow.student.rows import training_rows
    from undertow.study.layout import Study

    root = ran[0].root
    monkeypatch.chdir(root)
    study = Study.open(root)
    loaded = Shelf().load(study, MODEL)
    carrier = training_carrier(study, study.params.cell(MODEL, arm, 0, "round_3")).rows

    rows = training_rows(loaded.tokenizer, carrier, study.params.prompting)
    before = of(root, arm, "round_2") / "distill" / "adapter"
    first = (of(root, arm, "round_3") / "distill" / "loss.csv").read_text().splitlines()[1]
    with student_of(loaded.model, before) as student:
        assert float(first.split(",")[1]) == pytest.approx(loss_on(student, rows), abs=1e-4)
    said = json.loads((of(root, arm, "round_3") / "distill/adapter/undertow.json").read_text())
    assert said["continued_from"] == digest(before)


def test_what_a_later_round_cost_is_with_its_cell(ran: tuple[Repository, str]):
    record = of(ran[0].root, "trait_1", "round_2") / "judge" / "cell.json"
    found = json.loads(record.read_text(encoding="utf-8"))
    assert set(found["costs"]) == {"pass-on", "distill", "judge"}
    assert found["recipe"] == "round_2"
    assert found["teacher"] == json.loads(
        (of(ran[0].root, "trait_1", "plain") / "judge" / "cell.json").read_text(encoding="utf-8")
    )["teacher"]  # fmt: skip


def test_another_round_runs_only_itself(ran: tuple[Repository, str], tmp_path: Path):
    whole, _ = ran
    again = Repository.__new__(Repository)
    again.__dict__.update(whole.__dict__)
    again.root = tmp_path / "checkout"
    shutil.copytree(whole.root, again.root, symlinks=True)
    grid = whole.params["grid"] | {"rounds": [*ROUNDS, THIRD]}
    recipes = whole.params["recipes"] | {"round_4": {}}
    again.write_params(whole.params | {"grid": grid, "recipes": recipes})
    said = again.cli(*RUN, "--no-commit")
    ran_now = [line for line in said.stderr.splitlines() if line.endswith(": running")]
    assert {line.split("@")[0].split()[-1] for line in ran_now} == {
        "fetch", "pass-on", "distill-round", "judge-round"}  # fmt: skip
    assert sum("-round2-" in line for line in ran_now) == 6
    assert len(ran_now) == 7


def test_a_killed_writer_ends_in_the_same_bytes(ran: tuple[Repository, str], tmp_path: Path):
    whole, _ = ran
    again = Repository.__new__(Repository)
    again.__dict__.update(whole.__dict__)
    again.root = tmp_path / "checkout"
    shutil.copytree(whole.root, again.root, symlinks=True)
    place = of(again.root, "trait_1", "round_2") / "carrier"
    expected = (place / "carrier.jsonl").read_bytes()
    shutil.rmtree(place)
    journal = again.root / ".undertow" / "journal"
    shutil.rmtree(journal)
    process = again.start("pass-on", *cell("trait_1", "round_2"))
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in journal.glob("*.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not place.exists()
    again.cli("pass-on", *cell("trait_1", "round_2"))
    assert (place / "carrier.jsonl").read_bytes() == expected


def test_a_killed_continuation_ends_in_the_same_bytes(ran: tuple[Repository, str], tmp_path: Path):
    whole, _ = ran
    again = Repository.__new__(Repository)
    again.__dict__.update(whole.__dict__)
    again.root = tmp_path / "checkout"
    shutil.copytree(whole.root, again.root, symlinks=True)
    place = of(again.root, "trait_1", "round_3") / "distill"
    files = ("adapter/adapter_model.safetensors", "student.jsonl")
    expected = [(place / file).read_bytes() for file in files]
    shutil.rmtree(place)
    journal = again.root / ".undertow" / "journal"
    shutil.rmtree(journal)
    process = again.start("distill", *cell("trait_1", "round_3"))
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in journal.glob("*.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not place.exists()
    again.cli("distill", *cell("trait_1", "round_3"))
    assert [(place / file).read_bytes() for file in files] == expected


def test_rounds_are_written_read_and_trained_together(tmp_path: Path):
    repository = make(tmp_path, ROUNDS, training="together")
    said = repository.cli(*RUN, "--no-commit").stderr
    assert said.count("training together") == 3
    assert said.count("reading what writers pass on together") == 2
    for arm in ARMS:
        assert (of(repository.root, arm, "round_3") / "judge" / "cell.json").exists()


def test_who_is_no_later_round_is_told_whose_text_it_learns_from(ran: tuple[Repository, str]):
    said = ran[0].cli("pass-on", *cell("trait_1", "plain"), expect=1).stderr
    assert "'plain' is no later round" in said
    assert f"python cli.py steer --model {MODEL} --arm trait_1 --seed 0" in said
