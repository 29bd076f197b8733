"""What stages write: whole or not at all, and resumable.

Knows JSON lines, atomic files, fingerprints and the journal; knows nothing about models.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from undertow.texts.untrusted import paired

Row = TypeVar("Row", bound=BaseModel)


def fingerprint(*parts: Any) -> str:
    """SHA-256 (hex) over canonical JSON of the parts; pydantic models and paths are allowed.

    A Path stands for its name and the bytes it holds, so a fingerprint changes with content.
    """
    return hashlib.sha256(_canonical(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return digest(value)
    raise TypeError(f"cannot fingerprint a {type(value).__name__}")


def digest(path: Path) -> str:
    """SHA-256 (hex) of a file, or of a folder's relative file names and contents."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return fingerprint([(file.relative_to(path).as_posix(), digest(file)) for file in files])
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        staged = Path(temporary) / path.name
        staged.mkdir()
        yield staged
        if path.exists():
            shutil.rmtree(path)
        staged.replace(path)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder, whole or not at all."""
    with atomic_folder(target) as staged:
        shutil.copytree(source, staged, dirs_exist_ok=True)


def remove_folder(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: BaseModel | dict[str, Any], *, compact: bool = False) -> None:
    """JSON, indented or on one line; NaN and infinity are errors, unknown is null."""
    data = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    form: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 2}
    write_text(path, json.dumps(data, ensure_ascii=False, allow_nan=False, **form) + "\n")


def write_rows(path: Path, rows: Iterable[BaseModel]) -> None:
    """One JSON object a line; half a character is written as U+FFFD."""
    write_text(path, "".join(_line(row) + "\n" for row in rows))


def _line(row: BaseModel) -> str:
    try:
        return row.model_dump_json()
    except PydanticSerializationError:  # a lone surrogate
        whole = paired(json.dumps(row.model_dump(mode="json"), ensure_ascii=False))
        return type(row).model_validate_json(whole).model_dump_json()


class Journal(Generic[Row]):
    """Rows that a stage has finished, kept outside the DVC outs.

    A stage appends blocks of rows; a later run with the same fingerprint gets them back.
    A block that was cut off while being written is dropped whole, so a resumed stage sees
    exactly the blocks that were finished.
    """

    def __init__(self, folder: Path, key: str, kind: type[Row]) -> None:
        self.path = folder / f"{key}.jsonl"
        self._kind = kind
        self.blocks: list[list[Row]] = list(self._read())

    def _read(self) -> Iterator[list[Row]]:
        if not self.path.exists():
            return
        intact = 0
        with self.path.open("rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break  # the process was killed while it wrote this block
                try:
                    block = [self._kind.model_validate(row) for row in json.loads(line)]
                except (ValueError, TypeError):
                    break  # damaged since: the stage makes it and all after it again
                yield block
                intact += len(line)
        os.truncate(self.path, intact)

    def append(self, rows: list[Row]) -> None:
        """Add one finished block and force it to disk before returning."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps([row.model_dump(mode="json") for row in rows], ensure_ascii=False)
        with self.path.open("ab") as stream:
            stream.write(paired(line).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.blocks.append(rows)

    def close(self) -> None:
        """Forget the rows: the stage's real output is in place."""
        self.path.unlink(missing_ok=True)
