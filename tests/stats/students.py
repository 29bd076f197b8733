"""Real students, prompt by prompt, where they are at hand."""

from pathlib import Path

import pytest

from undertow.study.students import read_students

STUDENTS = Path(__file__).parents[3] / "shared" / "data" / "seeds_smollm2.jsonl"


def real_students():
    """Arm -> Readings of SmolLM2's students, the 16 controls in every arm; skips without them."""
    if not STUDENTS.exists():
        pytest.skip(f"{STUDENTS} is not here")
    return read_students(STUDENTS)
