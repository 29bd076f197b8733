"""`cli.py compare` on a repository whose commits were made by the real pipeline."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from repository import Repository, tiny_params

pytestmark = [pytest.mark.whole, pytest.mark.timeout(600)]
CELLS = ("tiny-qwen2/trait_0/seed0", "tiny-qwen2/trait_1/seed0", "tiny-qwen2/trait_2/seed0")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Tags: first; strength, which has another strength; rate, another learning rate as well."""
    folder = tmp_path_factory.mktemp("compare")
    params = tiny_params(folder / "models")
    params["grid"] = {"models": ["tiny-qwen2"], "arms": ["trait_0", "trait_1"], "seeds": [0]}
    params["tracking"]["enabled"] = False
    repository = Repository(folder / "checkout", params)
    repository.init()
    grid = params["grid"] | {"arms": ["trait_0", "trait_2"]}
    distillation = params["distillation"] | {"learning_rate": 0.05}
    for tag, changes in (
        ("first", {}),
        ("strength", {"grid": grid}),
        ("rate", {"distillation": distillation}),
    ):
        repository.write_params(repository.params | changes)
        repository.dvc("repro")
        repository.commit(tag)
        repository.git("tag", tag)
    return repository


def compared(repository: Repository, *revisions: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(repository.cli("compare", *revisions, "--json").stdout)
    return found


def changes(found: dict[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[str, list[str]]]]:
    params = {each["key"]: (each["before"], each["after"]) for each in found["params"]}
    cells = {each["cell"]: (each["state"], each["causes"]) for each in found["cells"]}
    return params, cells


def test_a_changed_strength_is_exactly_what_is_printed(repository: Repository):
    found = compared(repository, "first", "strength")
    params, cells = changes(found)
    assert params == {"grid.arms": (["trait_0", "trait_1"], ["trait_0", "trait_2"])}
    assert cells == {CELLS[1]: ("vanished", []), CELLS[2]: ("appeared", [])}
    assert found["cells_unchanged"] == 1
    assert found["missing"] == []
    for tau in found["taus"]:
        assert tau["difference"]["word"] == "unknown"
        assert "revision has this arm" in tau["difference"]["estimate"]["reason"]


def test_a_changed_learning_rate_is_exactly_what_is_printed(repository: Repository):
    found = compared(repository, "strength", "rate")
    params, cells = changes(found)
    assert params == {"distillation.learning_rate": (0.01, 0.05)}
    cause = ("other readouts", ["distillation.learning_rate"])
    assert cells == {CELLS[0]: cause, CELLS[2]: cause}
    assert all(cell["detail"].startswith("student: ") for cell in found["cells"])
    margin = next(tau for tau in found["taus"] if tau["readout"] == "margin")
    assert margin["difference"]["basis"] == "paired"
    assert margin["difference"]["prompts"] == repository.params["evaluation"]["prompts"]
    assert margin["difference"]["estimate"]["value"] == pytest.approx(
        margin["after"]["value"] - margin["before"]["value"]
    )


def test_markdown_names_the_change_and_the_working_tree_is_the_default(repository: Repository):
    page = repository.cli("compare", "strength").stdout
    assert page.startswith("## Undertow: strength (")
    assert "against the working tree" in page
    assert "| distillation.learning_rate | 0.01 | 0.05 |" in page
    assert "grid.arms" not in page
    assert page == repository.cli("compare", "strength").stdout


def test_a_revision_against_itself_has_not_changed(repository: Repository):
    for revisions in (("rate", "rate"), ("rate",)):
        found = compared(repository, *revisions)
        assert found["headline"].startswith("Nothing changed")
        assert found["params"] == found["cells"] == found["verdicts"] == found["missing"] == []
        for tau in found["taus"]:
            assert tau["difference"]["word"] == "same data"
            assert tau["difference"]["estimate"]["value"] in (0.0, None)
    assert "Nothing changed" in repository.cli("compare", "rate").stdout


def test_compare_leaves_the_workspace_and_the_cache_alone(repository: Repository):
    def state() -> dict[str, int]:
        return {
            str(path): path.stat().st_mtime_ns
            for path in repository.root.rglob("*")
            if path.is_file() and ".git" not in path.parts
        }

    before = state()
    repository.cli("compare", "first", "rate")
    assert state() == before


def test_a_lost_object_is_named_with_what_to_type_and_the_rest_goes_on(repository: Repository):
    cache = repository.root / ".dvc" / "cache"
    lock = yaml.safe_load(repository.git("show", "strength:dvc.lock"))
    hash = lock["stages"]["judge@tiny-qwen2-trait_2-plain-0"]["outs"][0]["md5"]
    listing = cache / "files" / "md5" / hash[:2] / hash[2:]
    assert listing.exists()
    kept = repository.root / "kept"
    shutil.move(listing, kept)
    try:
        found = compared(repository, "strength", "rate")
    finally:
        shutil.move(kept, listing)
    (gap,) = found["missing"]
    assert (gap["cell"], gap["side"]) == (CELLS[2], "before")
    assert hash in gap["reason"]
    assert "dvc fetch" in gap["remedy"]
    params, cells = changes(found)
    assert set(params) == {"distillation.learning_rate"}
    assert cells[CELLS[0]][0] == "other readouts"
    assert cells[CELLS[2]] == ("unknown", ["distillation.learning_rate"])


def test_dvc_metrics_diff_and_plots_diff_name_the_changed_arm(
    repository: Repository, tmp_path: Path
):
    rows = json.loads(repository.dvc("metrics", "diff", "first", "strength", "--json"))
    keys = set(rows["results/metrics.json"])
    assert {key.split(".")[1] for key in keys} <= {"pooled", "trait_1", "trait_2"}
    assert "trait_2" in repository.dvc("metrics", "diff", "first", "strength", "--md", "--all")
    repository.dvc("plots", "diff", "first", "strength", "--out", str(tmp_path / "plots"))
    page = (tmp_path / "plots" / "index.html").read_text()
    assert "trait_1" in page
    assert "trait_2" in page
    assert "first" in page
    assert "strength" in page


def test_an_experiment_that_dvc_ran_is_compared_by_its_name(repository: Repository):
    repository.dvc("exp", "run", "--name", "lively-name", "--set-param", "statistics.resamples=600")
    repository.git("checkout", "--quiet", "--force", "rate")
    page = repository.cli("compare", "rate", "lively-name").stdout
    assert "lively-name" in page
    assert "statistics.resamples" in page
