"""Files are whole or absent; a journal gives back exactly the blocks that were finished."""

import pytest
from pydantic import BaseModel

from undertow.errors import DataError
from undertow.study.files import (
    Journal,
    atomic_file,
    atomic_folder,
    digest,
    fingerprint,
    write_json,
    write_rows,
    write_text,
)
from undertow.study.found import read_rows


class Row(BaseModel):
    id: str
    value: float | None = None


ROWS = [Row(id="a", value=1.5), Row(id="b"), Row(id="zeile ü\u2028")]


def test_rows_come_back_as_they_were_written(tmp_path):
    write_rows(tmp_path / "rows.jsonl", ROWS)
    assert read_rows(tmp_path / "rows.jsonl", Row) == ROWS


def test_half_a_character_is_written_and_read_as_a_replacement(tmp_path):
    path, broken = tmp_path / "rows.jsonl", Row(id="half \ud83d", value=0.1)
    write_rows(path, [broken, *ROWS])
    assert read_rows(path, Row) == [Row(id="half \ufffd", value=0.1), *ROWS]
    path.write_text('{"id": "half \\ud83d and \\ud83d\\ude00"}\n')  # as other programs spell it
    assert read_rows(path, Row) == [Row(id="half \ufffd and \U0001f600")]
    Journal(tmp_path, "key", Row).append([broken])
    assert Journal(tmp_path, "key", Row).blocks == [[Row(id="half \ufffd", value=0.1)]]
    assert fingerprint(broken) != fingerprint(ROWS[0])


def test_a_broken_row_is_named_by_file_and_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "a"}\n{"id": 3}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2 is not a Row: id"):
        read_rows(path, Row)


def test_a_missing_file_says_how_to_get_it(tmp_path):
    with pytest.raises(DataError, match="dvc repro"):
        read_rows(tmp_path / "absent.jsonl", Row)
    with pytest.raises(DataError, match="dvc pull"):
        read_rows(tmp_path / "data" / "absent.jsonl", Row)


def test_an_exception_leaves_the_old_file_and_no_trace(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_exception_leaves_the_old_folder_and_no_trace(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(RuntimeError), atomic_folder(path) as staged:
        (staged / "new").touch()
        raise RuntimeError
    assert [file.name for file in path.iterdir()] == ["old"]
    with atomic_folder(path) as staged:
        (staged / "new").touch()
    assert [file.name for file in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_infinity_is_never_written_as_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"tau": float("inf")})
    assert not (tmp_path / "x.json").exists()


def test_a_journal_gives_back_finished_blocks(tmp_path):
    journal = Journal(tmp_path, "key", Row)
    journal.append(ROWS[:2])
    journal.append(ROWS[2:])
    assert Journal(tmp_path, "key", Row).blocks == [ROWS[:2], ROWS[2:]]
    assert Journal(tmp_path, "other", Row).blocks == []
    journal.close()
    assert Journal(tmp_path, "key", Row).blocks == []


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_a_block_that_was_cut_off_is_dropped_whole_and_written_again(tmp_path, cut):
    journal = Journal(tmp_path, "key", Row)
    journal.append(ROWS[:1])
    journal.append(ROWS[1:])
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-cut])
    resumed = Journal(tmp_path, "key", Row)
    assert resumed.blocks == [ROWS[:1]]
    resumed.append(ROWS[1:])
    assert journal.path.read_bytes() == whole


def test_a_fingerprint_follows_content_and_not_place(tmp_path):
    (tmp_path / "a").write_text("same")
    (tmp_path / "b").write_text("same")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    (tmp_path / "b").write_text("other")
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")
    assert fingerprint({"x": 1, "y": 2}) == fingerprint({"y": 2, "x": 1})
    assert fingerprint("ab", "c") != fingerprint("a", "bc")


def test_a_folder_s_digest_follows_names_and_contents(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("text")
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    (tmp_path / "two" / "file").rename(tmp_path / "two" / "other")
    assert digest(tmp_path / "one") != digest(tmp_path / "two")


def test_what_a_hard_linked_cache_holds_is_replaced_and_never_written_through(tmp_path):
    """DVC's cache may share its bytes with the checkout: cache.type hardlink."""
    cache, folder = tmp_path / "cache", tmp_path / "out"
    cache.mkdir()
    folder.mkdir()
    for name in ("a.json", "b.jsonl", "c.txt"):
        (cache / name).write_text("kept")
        (cache / name).chmod(0o444)
        (folder / name).hardlink_to(cache / name)
    write_json(folder / "a.json", {"new": 1})
    write_rows(folder / "b.jsonl", [])
    write_text(folder / "c.txt", "new")
    assert {path.read_text() for path in cache.iterdir()} == {"kept"}
    assert "kept" not in {path.read_text() for path in folder.iterdir()}
