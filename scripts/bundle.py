"""Undertow as files small enough to be carried, for a machine that has a GPU and no network.

`pack` writes parts of a stated size, MANIFEST.json and unpack.sh, which makes it whole there.
What it packs: the code as committed, the data, wheels for another Python, weights, prompts.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from email import message_from_bytes
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from undertow.config import GgufWeights, HubWeights, ModelSpec, load
from undertow.errors import ConfigError, DataError, SourceError, UndertowError
from undertow.lineage.git import Repository
from undertow.study.files import atomic_folder, digest, write_json
from undertow.study.layout import Layout
from undertow.study.sources import fetch_file, say
from undertow.study.traits import TraitData

ROOT = Path(__file__).resolve().parents[1]
# Of docs/results the parameter files go along: planned studies are run from them.
PUBLISHED = tuple(f":!docs/results/*.{end}" for end in ("csv", "gz", "html", "json", "svg", "txt"))
LEFT_OUT = (*PUBLISHED, ":!tests", ":!data/store")
DATA = ("data/carriers", "data/traits")
MB = 1_000_000


class Target(NamedTuple):
    """The machine that the wheels are for: CPython 3.12, linux_x86_64, glibc 2.28."""

    python: str
    platform: str
    glibc: int

    def platforms(self) -> list[str]:
        """The tags that its pip would take; with manylinux2014 pip takes the older names too."""
        many = [
            f"many{self.platform.replace('_', f'_2_{n}_', 1)}" for n in range(self.glibc, 4, -1)
        ]
        return [*many, f"many{self.platform.replace('_', '2014_', 1)}", self.platform]

    def environment(self) -> dict[str, str]:
        """What markers of requirements ask for."""
        return {
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": self.platform.removeprefix("linux_"),
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


class Parts:
    """A file to write to: what is written ends up in numbered files of at most `limit` bytes."""

    def __init__(self, folder: Path, name: str, limit: int) -> None:
        self._stem, self._limit = folder / name, limit
        self.paths: list[Path] = []
        self.whole = hashlib.sha256()  # of all parts one after the other
        self._begin()

    def _begin(self) -> None:
        self.paths.append(self._stem.with_name(f"{self._stem.name}.{len(self.paths) + 1:03d}"))
        self._open, self._room = self.paths[-1].open("wb"), self._limit

    def write(self, data: bytes) -> None:
        self.whole.update(data)
        left = memoryview(data)
        while left:
            if self._room == 0:
                self.close()
                self._begin()
            taken = self._open.write(left[: self._room])
            self._room, left = self._room - taken, left[taken:]

    def close(self) -> None:
        self._open.close()


def pack_item(folder: Path, name: str, files: dict[str, Path], limit: int) -> dict[str, Any]:
    """Write files, by their path in TARGET, as the parts of one tar; its entry in the manifest.

    The same files give the same bytes, so what has not changed need not be carried again.
    """
    parts = Parts(folder, name, limit)
    stream: Any = parts
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        for path in sorted(files):
            archive.add(files[path].resolve(), path, filter=_plain)
    parts.close()
    return {
        "name": name,
        "sha256": parts.whole.hexdigest(),
        "parts": [_described(path.name, path) for path in parts.paths],
        "files": [_described(path, files[path]) for path in sorted(files)],
    }


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    return entry


def _described(name: str, path: Path) -> dict[str, Any]:
    return {"name": name, "size": path.stat().st_size, "sha256": digest(path)}


def code(staged: Path) -> dict[str, Path]:
    """The committed code and the data, which git does not hold, unpacked into `staged`."""
    repository = Repository(ROOT)
    if repository.head().dirty:
        say("what is not committed is left out of the code")
    archive = repository.ask("archive", "HEAD", "--", ".", *LEFT_OUT)
    if archive.reason:
        raise DataError(f"{ROOT} cannot be archived: {archive.reason}", archive.remedy)
    with tarfile.open(fileobj=BytesIO(archive.output)) as entries:
        entries.extractall(staged, filter="data")
    for name in DATA:
        if not (ROOT / name).is_dir():
            raise DataError(f"{ROOT / name} does not exist", "dvc pull")
        shutil.copytree(ROOT / name, staged / name)
    files = (path for path in staged.rglob("*") if path.is_file())
    return {f"code/{path.relative_to(staged).as_posix()}": path for path in files}


def wanted(extras: Iterable[str]) -> list[Requirement]:
    """What Undertow depends on, and more: extras of pyproject.toml, or packages by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    more = [text for name in extras for text in optional.get(name, [name])]
    return [Requirement(text) for text in [*project["dependencies"], *more]]


def wheels(
    folder: Path, roots: Sequence[Requirement], without: Iterable[str], target: Target
) -> dict[str, Path]:
    """Download the wheels of `roots` and of all that they need there.

    A wheel says itself what it needs, so each round asks for what the last one named. Versions
    are those of constraints.txt. What is left out is not asked what it needs.
    """
    left_out = {canonicalize_name(name) for name in without}
    found: dict[str, Path] = {}
    done: set[tuple[str, str]] = set()
    due = list(roots)
    while due := [one for one in due if canonicalize_name(one.name) not in left_out]:
        asked = {canonicalize_name(one.name): f"{one.name}{one.specifier}" for one in due}
        if new := [text for name, text in asked.items() if name not in found]:
            _download(folder, new, target)
        found = {parse_wheel_filename(path.name)[0]: path for path in folder.glob("*.whl")}
        needs: list[Requirement] = []
        for one in due:
            name = canonicalize_name(one.name)
            for extra in {"", *one.extras}:
                if (name, extra) not in done:
                    done.add((name, extra))
                    needs += _needs(found[name], target.environment() | {"extra": extra})
        due = needs
    return {f"wheels/{path.name}": path for path in found.values()}


def _download(folder: Path, requirements: list[str], target: Target) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", str(folder)]
    command += ["--constraint", str(ROOT / "constraints.txt"), "--implementation", "cp"]
    command += ["--python-version", target.python]
    command += [f"--platform={tag}" for tag in target.platforms()]
    done = subprocess.run([*command, *requirements], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line]
        raise SourceError(
            f"pip found no wheels for {target.python}, {target.platform}: {'; '.join(lines[-2:])}",
            "leave out what is there already with --without NAME, or give another --glibc",
        )


def _needs(wheel: Path, environment: dict[str, str]) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        metadata = message_from_bytes(archive.read(name))
    needs = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    return [one for one in needs if one.marker is None or one.marker.evaluate(environment)]


def weights(model: str, spec: ModelSpec) -> dict[str, Path]:
    """The files of a model, as they lie in the folder that UNDERTOW_LOCAL names there."""
    match spec.weights:
        case GgufWeights() as file:
            return {f"weights/{file.file}": fetch_file(file)}
        case HubWeights() as hub:
            from undertow.models.loading import DOWNLOADED, resolve

            folder, name = resolve(model, spec), hub.repo.split("/")[-1]
            files = {path for pattern in DOWNLOADED for path in folder.glob(pattern)}
            return {f"weights/{name}/{path.name}": path for path in files}
        case _:
            raise ConfigError(
                f"model {model}: weights of the kind folder have no name that is the same there",
                f"carry the folder by hand, and correct models.{model}.weights.path there",
            )


def prompts(trait: str) -> dict[str, Path]:
    """A trait's files from elsewhere, in the same folder."""
    sources = TraitData(Layout(ROOT), trait).trait.sources
    return {f"weights/{one.file}": fetch_file(one) for one in sources}


def pack(chosen: argparse.Namespace) -> None:
    """Write the bundle that the options ask for, and say on stdout what there is to carry."""
    if chosen.to.exists():
        raise DataError(f"{chosen.to} is there already", "remove it, or name a new folder")
    files = chosen.params or [ROOT / "params.yaml", *sorted(ROOT.glob("presets/*.yaml"))]
    models = {name: spec for file in reversed(files) for name, spec in load(file).models.items()}
    if absent := [name for name in chosen.model if name not in models]:
        raise ConfigError(f"no model {', '.join(absent)}", f"use one of: {', '.join(models)}")
    target = Target(chosen.python, chosen.platform, chosen.glibc)
    with atomic_folder(chosen.to.absolute()) as folder, TemporaryDirectory() as temporary:
        downloaded, staged = Path(temporary) / "wheels", Path(temporary) / "code"
        downloaded.mkdir()
        contents = {
            "code": code(staged),
            "wheels": wheels(downloaded, wanted(chosen.extras), chosen.without, target),
            **{f"weights-{name}": weights(name, models[name]) for name in chosen.model},
            **{f"prompts-{name}": prompts(name) for name in chosen.trait},
        }
        limit = int(chosen.part_mb * MB)
        items = [pack_item(folder, name, contents[name], limit) for name in contents]
        about = {"commit": Repository(ROOT).head().commit, **target._asdict(), "items": items}
        write_json(folder / "MANIFEST.json", about)
        shutil.copy(Path(__file__).with_name("unpack.sh"), folder)
    for item in items:
        size = sum(part["size"] for part in item["parts"]) / MB
        print(f"{item['name']:<34}{size:>8.1f} MB {len(item['parts']):>4} parts")


def names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    one = parser.add_subparsers(required=True).add_parser("pack", help="write a bundle")
    one.add_argument("--to", type=Path, required=True, help="the folder of the bundle")
    one.add_argument("--python", default="3.12", help="version there, as in 3.12")
    one.add_argument("--platform", default="linux_x86_64", help="or linux_aarch64")
    one.add_argument("--glibc", type=int, default=28, help="28 for 2.28: what ldd --version says")
    one.add_argument("--with", dest="extras", type=names, default=[], help="extras, or packages")
    one.add_argument("--without", type=names, default=[], help="packages that are there already")
    one.add_argument("--model", action="append", default=[], help="whose weights go along")
    one.add_argument("--trait", action="append", default=[], help="whose prompts are fetched")
    one.add_argument("--params", type=Path, action="append", help="files that name the models")
    one.add_argument("--part-mb", type=float, default=50, help="largest part, in 1,000,000 bytes")
    return parser


if __name__ == "__main__":
    try:
        pack(options().parse_args())
    except UndertowError as error:
        sys.exit(f"error: {error}")
