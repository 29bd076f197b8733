"""A teacher that is exported, served by transformers and asked: its answers are the stage's own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from repository import Repository, tiny_params
from served import NEEDED, transformers_serve

pytestmark = [pytest.mark.timeout(240), NEEDED]
CELL = ("--model", "tiny-qwen2", "--arm", "trait_1", "--seed", "0")
STEER = Path("results/cells/tiny-qwen2/trait_1/0/steer")
WRITTEN = ("carrier.jsonl", "teacher.jsonl", "benign.jsonl")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A checkout with an exported teacher, whose cell was answered here."""
    folder = tmp_path_factory.mktemp("asking")
    params = tiny_params(folder / "models")
    params["carrier"]["temperature"] = 0.0
    # The study draws without it, and the engine must too.
    settings = folder / "models" / "tiny-qwen2" / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"repetition_penalty": 1.5}))
    repository = Repository(folder / "checkout", params)
    for command in (["fetch", *CELL[:2]], ["direction", *CELL[:2]], ["steer", *CELL]):
        repository.cli(*command)
    repository.cli("export", "teacher", *CELL[:4], "--out", "teacher")
    return repository


@pytest.fixture(scope="module")
def url(repository: Repository) -> Iterator[str]:
    """Where transformers serves that teacher."""
    with transformers_serve(repository.root / "teacher") as address:
        yield address


@pytest.mark.whole
def test_greedy_answers_through_a_server_make_the_same_cell(repository: Repository, url: str):
    root = repository.root
    before = {name: (root / STEER / name).read_bytes() for name in WRITTEN}
    asked = repository.cli("questions", *CELL).stdout
    (root / "questions.jsonl").write_text(asked)
    assert len(asked.split("\n")) == 8 + 12 + 6 + 1
    how = ("--url", url, "--served", str(root / "teacher"), "--engine", "transformers serve")
    repository.cli("ask", "questions.jsonl", *how, "--to", "answers.jsonl")
    answers = root / "answers.jsonl"

    # Killed in the middle of a line: what is whole is not asked again.
    whole = answers.read_bytes().split(b"\n")
    answers.write_bytes(b"\n".join(whole[:10]) + b"\n" + whole[10][:20])
    repository.cli("ask", "questions.jsonl", *how, "--to", "answers.jsonl")
    again = answers.read_bytes().split(b"\n")
    assert again[:10] == whole[:10]
    assert sorted(again) == sorted(whole)

    told = repository.cli("steer", *CELL, "--answers", "answers.jsonl").stderr
    assert "DVC was not told" in told
    for name in WRITTEN:
        assert (root / STEER / name).read_bytes() == before[name], name
    given = json.loads((root / STEER / "manifest.json").read_text())["given"]
    assert given["engine"] == "transformers serve"
    assert given["reason"] is None


@pytest.mark.whole
def test_an_endpoint_that_does_not_answer_loses_nothing(repository: Repository):
    root = repository.root
    (root / "few.jsonl").write_text(
        json.dumps(
            {
                "id": "carrier/a",
                "prompt": "Hm?",
                "messages": [{"role": "user", "content": "Hm?"}],
                "max_tokens": 4,
                "temperature": 0.0,
                "top_p": 1.0,
                "seed": 0,
            }
        )
        + "\n"
    )
    kept = root / "kept.jsonl"
    header = {"engine": None, "settings": {"api": "chat completions", "model": "m"}}
    kept.write_text(json.dumps(header) + "\n" + json.dumps({"id": "carrier/b"}) + "\n")
    before = kept.read_bytes()
    how = ("--url", "http://127.0.0.1:9/v1", "--served", "m", "--to", "kept.jsonl")
    said = repository.cli("ask", "few.jsonl", *how, expect=1).stderr
    assert "does not answer" in said
    assert "it goes on" in said
    assert kept.read_bytes() == before
    said = repository.cli("ask", "few.jsonl", *how, "--engine", "other", expect=1).stderr
    assert "name another file with --to" in said
