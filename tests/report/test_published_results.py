"""What README and docs/results claim is what the published files hold."""

import importlib.util
import json
import re
import subprocess
from types import ModuleType

import pandas as pd
import pytest

from repository import ROOT

RESULTS = ROOT / "docs" / "results"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "scripts" / "write_results.py"
    spec = importlib.util.spec_from_file_location("write_results", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_answers_on_both_pages_are_those_of_the_published_summaries(script: ModuleType):
    for path, text in script.pages().items():
        assert path.read_text(encoding="utf-8") == text, "python scripts/write_results.py"


def test_every_claim_names_the_row_and_the_file_that_it_rests_on(script: ModuleType):
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    claims = text.split("## How to take them")[1].split("\n## ")[0].split("\n- ")[1:]
    rows = {each.letter: each.where for each in script.answers()}
    for where in (*rows.values(), *claims):
        files = re.findall(r"[a-z-]+/(?:[a-z-]+/)?[a-z]+\.json", where)
        assert files, where
        assert all((RESULTS / file).exists() for file in files)
    for claim in claims:
        letter = re.search(r"\(Row ([a-h]); ", claim)
        assert letter is not None and letter[1] in rows, claim


def test_the_picture_in_the_readme_is_what_this_version_draws(script: ModuleType):
    drawn = script.pictures(script.study("main"))["line.svg"]
    shown = (RESULTS / "main" / "line.svg").read_text(encoding="utf-8")
    assert drawn == shown, "python scripts/write_results.py"


@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "qwen25-coder-05b-instruct"])
def test_tau_is_what_pandas_makes_of_the_readings(model: str):
    """From the table of single readings alone, by the formula of docs/method.md."""
    rows = pd.read_csv(RESULTS / "main" / "plots" / "readings.csv.gz")
    rows = rows[(rows.model == model) & (rows.readout == "margin")]
    means = rows.groupby(["arm", "subject", "seed"]).value.mean().groupby(level=[0, 1]).mean()
    shift = means["trait_1.5", "student"] - means["trait_0", "student"]
    tau = shift / (means["trait_1.5", "teacher"] - means["trait_0", "teacher"])
    summary = json.loads((RESULTS / "main" / "summary.json").read_text())
    arm = next(
        each for each in summary["arms"] if (each["model"], each["arm"]) == (model, "trait_1.5")
    )
    assert tau == pytest.approx(arm["margin"]["tau"]["value"], abs=1e-6)


@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "qwen25-coder-05b-instruct"])
def test_the_slope_of_the_random_draws_is_what_pandas_makes_of_the_readings(model: str):
    """Of shifts from their mean over the draws, less what errors of a prompt add."""
    rows = pd.read_csv(RESULTS / "draws" / "plots" / "readings.csv.gz")
    rows = rows[(rows.model == model) & (rows.readout == "margin") & (rows.arm == "random_1.5")]
    read = rows.pivot_table(index="seed", columns=["subject", "prompt"], values="value")
    x, y = (read[subject] - read[subject].mean() for subject in ("teacher", "student"))
    means, prompts = x.mean(axis=1), x.shape[1]
    errors = x.sub(means, axis=0)
    common = (errors * y.sub(y.mean(axis=1), axis=0)).to_numpy().sum() / (prompts - 1)
    own = (errors**2).to_numpy().sum() / (prompts - 1)
    slope = (means @ y.mean(axis=1) - common / prompts) / (means @ means - own / prompts)
    summary = json.loads((RESULTS / "draws" / "summary.json").read_text())
    line = next(
        each for each in summary["lines"] if (each["model"], each["readout"]) == (model, "margin")
    )
    assert len(read) == 128
    assert slope == pytest.approx(line["random_slope"]["value"], abs=1e-5)


FIRST = ("main", "filtered", "strengths", "defences", "rounds", "refusal")


@pytest.mark.parametrize(
    ("plan", "study"),
    [
        *(("PLAN.md", name) for name in FIRST),
        ("PLAN-2.md", "draws"),
        ("planned/draws.yaml", "draws"),
    ],
)
def test_the_plan_was_there_before_the_results(plan: str, study: str):
    def added(path: str) -> int:
        command = ["git", "log", "--diff-filter=A", "--format=%ct", "--", f"docs/results/{path}"]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not found.stdout.strip():
            pytest.skip("no history of this file here")
        return int(found.stdout.split()[-1])

    assert added(plan) < added(f"{study}/summary.json")


def test_the_table_in_the_readme_is_the_published_one():
    shown = (ROOT / "README.md").read_text(encoding="utf-8").split("```")
    block = next(part for part in shown if part.startswith("\nsmollm2"))
    assert block.strip() in (RESULTS / "main" / "table.txt").read_text(encoding="utf-8")
