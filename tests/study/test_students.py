"""Students of other studies, read from JSON lines."""

import json

import pytest

from undertow.errors import UndertowError
from undertow.study.students import read_students


def row(arm, seed, student):
    return json.dumps(
        {"arm": arm, "seed": seed, "base": [0, 1], "teacher": [1, 2], "student": student}
    )


def test_every_arm_is_read_beside_all_control_students(tmp_path):
    path = tmp_path / "students.jsonl"
    path.write_text(
        "\n".join([row("trait_0", 0, [0, 0]), row("trait_0", 1, [1, 1]), row("trait_1", 0, [2, 3])])
        + "\n"
    )
    (arm,) = read_students(path).values()
    assert arm.control.shape == (2, 2) and arm.student.tolist() == [[2, 3]]


@pytest.mark.parametrize("text", ["", '{"arm": "trait_0"}', row("trait_1", 0, [0, 0])])
def test_a_file_without_students_is_refused(tmp_path, text):
    path = tmp_path / "students.jsonl"
    path.write_text(text)
    with pytest.raises(UndertowError):
        read_students(path)
