"""Files as they are found: read whole, or an error that names file, line and what to type.

Knows encodings, JSON, JSON lines and safetensors; knows nothing about what the files mean.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from undertow.config import PLAIN
from undertow.errors import DataError
from undertow.study.layout import STAGES
from undertow.texts.untrusted import paired

Kind = TypeVar("Kind", bound=BaseModel)
UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_text(path: Path) -> str:
    """A UTF-8 text, with or without a byte order mark.

    DataError where there is no such file, or where it has another encoding, with what to type.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        problem = "does not exist" if missing else f"cannot be read: {error.strerror}"
        raise DataError(f"{path} {problem}", how_to_get(path)) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wide = data.startswith(UTF16) or b"\0" in data[:64]
        name, code = ("UTF-16", "UTF-16") if wide else ("Latin-1 or Windows-1252", "WINDOWS-1252")
        raise DataError(
            f"{path}:{line} is not UTF-8 text (byte 0x{data[error.start]:02x}); it looks like "
            f"{name}",
            f"iconv -f {code} -t UTF-8 {path} > new, look at it and put it in the file's place; "
            f"where the file is not yours: {how_to_mend(path)}",
        ) from None


def read_record(path: Path, kind: type[Kind]) -> Kind:
    """One JSON record; DataError with what to type where it is absent, cut off or another's."""
    text = read_text(path)
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise DataError(
            f"{path} is damaged, or of another version of Undertow: {first_problem(error)}",
            how_to_mend(path),
        ) from None


def read_rows(path: Path, kind: type[Kind]) -> list[Kind]:
    """The records of a JSON lines file; DataError names the file and the line."""
    return [row for _, row in numbered_rows(path, kind)]


def numbered_rows(path: Path, kind: type[Kind]) -> list[tuple[int, Kind]]:
    """The records of a JSON lines file with the numbers of their lines."""
    rows: list[tuple[int, Kind]] = []
    # Lines end with \n alone: a JSON text may hold what splitlines() takes for an end.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        if not rows and line.lstrip().startswith("["):
            raise DataError(
                f"{path}:{number} begins a JSON list, and every line must be an object of its own",
                f"jq -c '.[]' {path} > new, and put new in the file's place",
            )
        try:
            rows.append((number, _row(line, kind)))
        except ValidationError as error:
            raise DataError(
                f"{path}:{number} is not a {kind.__name__}: {first_problem(error)}",
                how_to_mend(path),
            ) from None
    return rows


def _row(line: str, kind: type[Kind]) -> Kind:
    """Half a character, which JSON can spell and UTF-8 cannot, is read as U+FFFD."""
    try:
        return kind.model_validate_json(line)
    except ValidationError:
        if "\\ud" not in line.lower():
            raise
    return kind.model_validate_json(paired(json.dumps(json.loads(line), ensure_ascii=False)))


@contextmanager
def tensors(path: Path, framework: Literal["np", "pt"]) -> Iterator[Any]:
    """An open safetensors file; DataError where it, or what the block reads of it, is damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise DataError(f"{path} does not exist", how_to_get(path))
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is damaged ({type(error).__name__}: {error})", how_to_mend(path)
        ) from None


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong with a record, with its key."""
    return problems(error)[0]


def problems(error: ValidationError) -> list[str]:
    """All that is wrong with a record, each with its key."""
    keys = [".".join(map(str, each["loc"])) for each in error.errors()]
    return [
        f"{key}: {each['msg']}" if key else str(each["msg"])
        for key, each in zip(keys, error.errors(), strict=True)
    ]


def how_to_get(path: Path) -> str:
    """What to type where a file of a study is absent."""
    if "data" in path.parts:
        return "dvc pull data/carriers.dvc data/traits.dvc"
    command = made_by(path)
    return f"dvc repro, or: {command}" if command else "dvc repro"


def how_to_mend(path: Path) -> str:
    """What to type where a file of a study is there, and wrong."""
    if "data" in path.parts:
        folder = "/".join(_below("data", path)[:1])
        return f"mend it, then: dvc add data/{folder}; or take it back: dvc checkout data/{folder}"
    command = made_by(path)
    return f"remove it, then: {how_to_get(path)}" if command else "remove it, then: dvc repro"


def made_by(path: Path) -> str | None:
    """The command that writes a file below results/; None for any other file."""
    match _below("results", path):
        case ("models", name):
            return f"python cli.py fetch --model {name.split('.')[0]}"
        case ("directions", model, *_):
            return f"python cli.py direction --model {model}"
        case ("audit", name):
            return f"python cli.py audit --model {name.removesuffix('.json')}"
        case ("bases", model, *_):
            return f"python cli.py fetch --model {model}"
        case ("cells", model, arm, seed, "steer", *_):
            return f"python cli.py steer --model {model} --arm {arm} --seed {seed}"
        case ("cells", model, arm, seed, student, place, *_) if place in (*STAGES, "carrier"):
            stage = "pass-on" if place == "carrier" else place
            which = f"--model {model} --arm {arm} --seed {seed}"
            further = "" if student == PLAIN else f" --student {student}"
            return f"python cli.py {stage} {which}{further}"
        case ("calibration", name):
            return f"python cli.py judge calibrate --set {name.split('.')[0]}"
        case ("summary.json" | "metrics.json" | "report.html" | "plots", *_):
            return "python cli.py report"
    return None


def _below(folder: str, path: Path) -> tuple[str, ...]:
    """The parts of a path after the last folder of this name; none where there is no such."""
    parts = path.parts
    if folder not in parts:
        return ()
    return parts[len(parts) - parts[::-1].index(folder) :]
