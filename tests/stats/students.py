"""Real students, prompt by prompt, where they are at hand."""

from pathlib import Path

import pandas
import pytest

from undertow.study.students import read_students

STUDENTS = Path(__file__).parents[3] / "shared" / "data" / "seeds_smollm2.jsonl"

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def real_students():
    """Arm -> Readings of SmolLM2's students, the 16 controls in every arm; skips without them."""
    if not STUDENTS.exists():
        pytest.skip(f"{STUDENTS} is not here")
    return read_students(STUDENTS)


def published_students(readout):
    """Rows [seeds, prompts] of every arm along the trait, per model of the published studies."""
    found = []
    for table in sorted(RESULTS.glob("*/plots/readings.csv.gz")):
        rows = pandas.read_csv(table)
        rows = rows[(rows.readout == readout) & (rows.subject == "student")]
        for _, model in rows[rows.arm.str.startswith("trait")].groupby("model"):
            arms = [
                arm.pivot_table(index="seed", columns="prompt", values="value").dropna(axis=1)
                for _, arm in model.groupby("arm")
            ]
            found.append([arm.to_numpy() for arm in arms if len(arm) > 1])
    return found
