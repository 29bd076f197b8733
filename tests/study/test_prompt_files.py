"""Files of prompts: whatever people bring is read or refused with file, line and remedy."""

import json
from pathlib import Path

import pytest

from undertow.errors import DataError
from undertow.study.prompts import ContrastPrompt, Prompt, external_prompts, read_prompts


def file(folder: Path, *rows: object, encoding: str = "utf-8", name: str = "own.jsonl") -> Path:
    path = folder / "data" / "carriers" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
    return path


def row(id: str, prompt: str) -> dict[str, str]:
    return {"id": id, "prompt": prompt}


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_prompts(path, Prompt)
    return str(caught.value)


def test_every_id_and_prompt_that_stands_twice_is_named_with_both_lines(tmp_path):
    path = file(
        tmp_path, row("a", "One?"), row("b", "Two?"), row("a", "Three?"), "", row("c", "Two?")
    )
    message = refused(path)
    assert "lines 1 and 3 have the same id: 'a'" in message
    assert "lines 2 and 5 have the same prompt: 'Two?'" in message
    assert "dvc add data/carriers" in message
    assert "dvc pull" not in message  # which would be asked to replace the user's own file


def test_contrast_files_are_held_to_the_same(tmp_path):
    path = file(tmp_path, *({**row("a", f"{n}?"), "label": "present"} for n in range(2)))
    with pytest.raises(DataError, match="lines 1 and 2 have the same id"):
        read_prompts(path, ContrastPrompt)


def test_an_empty_prompt_and_an_id_that_is_a_number_are_refused_by_line(tmp_path):
    assert "line 2 has an empty prompt" in refused(file(tmp_path, row("a", "?"), row("b", " \n")))
    assert "own.jsonl:1 is not a Prompt: id:" in refused(
        file(tmp_path, {"id": 7, "prompt": "Seven?"})
    )


def test_a_byte_order_mark_and_windows_line_ends_are_read_over(tmp_path):
    path = file(tmp_path, row("a", "Größe\u2028?"), row("b", "♥"), encoding="utf-8-sig")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert [prompt.prompt for prompt in read_prompts(path, Prompt)] == ["Größe\u2028?", "♥"]


@pytest.mark.parametrize(
    ("encoding", "line", "named", "typed"),
    [
        ("latin-1", 2, "looks like Latin-1", "iconv -f WINDOWS-1252 -t UTF-8"),
        ("utf-16", 1, "looks like UTF-16", "iconv -f UTF-16 -t UTF-8"),
    ],
)
def test_other_encodings_are_named_with_line_and_conversion(tmp_path, encoding, line, named, typed):
    message = refused(file(tmp_path, row("a", "One?"), row("b", "Größe?"), encoding=encoding))
    assert f"own.jsonl:{line} is not UTF-8 text" in message
    assert named in message
    assert typed in message


def test_a_json_list_in_place_of_lines_is_named_with_the_way_to_lines(tmp_path):
    path = file(tmp_path, json.dumps([row("a", "?")], indent=1))
    assert "own.jsonl:1 begins a JSON list" in refused(path)
    assert "jq -c '.[]'" in refused(path)


def external(path: Path, format: str = "csv", rows: tuple[int, int] | None = None) -> list:
    return external_prompts(path, format, "prompt", rows)  # type: ignore[arg-type]


def test_external_rows_are_numbered_as_in_the_file(tmp_path):
    path = file(tmp_path, "n,prompt", "1,One?", '2,"Two, ""2""?"', encoding="utf-8-sig")
    assert external(path, rows=(1, 2)) == [(1, 'Two, "2"?')]
    path = file(tmp_path, json.dumps([{"prompt": "One?"}]))
    assert external(path, "json") == [(0, "One?")]


@pytest.mark.parametrize(
    ("lines", "format", "rows", "said"),
    [
        (["n;prompt", "1;One?"], "csv", None, "separated by another character than a comma"),
        (["n\tprompt", "1\tOne?"], "csv", None, "separated by another character"),
        (["n,question", "1,One?"], "csv", None, "no column 'prompt'; it has 'n', 'question'"),
        (["n,prompt", "1"], "csv", None, "row 0 holds no text in the column 'prompt' but None"),
        (["n,prompt", "1,One?"], "csv", (0, 2), "has 1 rows, and trait.yaml asks for rows 0 to 2"),
        (['{"prompt": "?"}', '{"prompt": "?"}'], "json", None, "jq -s ."),
        (['{"rows": []}'], "json", None, "holds no list of rows but one dict"),
        (['["One?"]'], "json", None, "row 0 is no object with columns but 'One?'"),
        (['[{"prompt": 3}]'], "json", None, "holds no text in the column 'prompt' but 3"),
    ],
)
def test_external_files_of_another_form_are_refused_with_what_to_do(
    tmp_path, lines, format, rows, said
):
    path = file(tmp_path, *lines)
    with pytest.raises(DataError) as caught:
        external(path, format, rows)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_external_file_in_another_encoding_is_named_too(tmp_path):
    path = file(tmp_path, "n,prompt", "1,Größe?", encoding="latin-1")
    with pytest.raises(DataError, match=r"own\.jsonl:2 is not UTF-8 text"):
        external(path)
