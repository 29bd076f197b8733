"""A bundle that is carried part by part makes a study folder that runs without a network."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from bundle import pack_item
from repository import ROOT, tiny_params
from tiny import save_tiny

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
HUB = {"kind": "hub", "repo": "team/tiny", "revision": "c" * 40}
DOUBLE = "undertow_double_"


def build_wheel(folder: Path, name: str, *needs: str) -> None:
    """A wheel of one module, which needs others."""
    stem = f"{DOUBLE}{name}-1.0"
    lines = ["Metadata-Version: 2.1", f"Name: {DOUBLE}{name}", "Version: 1.0"]
    lines += [f"Requires-Dist: {DOUBLE}{need}" for need in needs]
    tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{DOUBLE}{name}.py", "ANSWER = 42\n")
        wheel.writestr(f"{stem}.dist-info/METADATA", "\n".join(lines) + "\n")
        wheel.writestr(f"{stem}.dist-info/WHEEL", tag)
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheels, a tiny model of the kind hub, parameters and their bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "wheels").mkdir()
    elsewhere = 'absent; sys_platform == "win32" or python_version < "3"'
    build_wheel(folder / "wheels", "top", "below[more]", "there", elsewhere)
    build_wheel(folder / "wheels", "below", 'extra; extra == "more"', 'absent; extra == "less"')
    build_wheel(folder / "wheels", "extra", "top")
    build_wheel(folder / "wheels", "there", "absent")
    save_tiny(folder / "local" / "tiny", "smollm2")
    (folder / "local" / "tiny" / "pickled.bin").write_bytes(b"never carried")
    params = tiny_params(folder / "other")
    params["models"] = {"tiny": {"weights": HUB, "dtype": "float32"}}
    params["grid"]["models"] = ["tiny"]
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    pack(folder, folder / "bundle")
    return folder


def pack(place: Path, to: Path, *more: str, expect: int = 0) -> str:
    """Pack with all of Undertow's own needs left out, since they are where the test runs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    there = ",".join(Requirement(text).name for text in project["dependencies"])
    command = [sys.executable, str(ROOT / "scripts" / "bundle.py"), "pack", "--to", str(to)]
    command += ["--python", HERE, "--with", f"{DOUBLE}top", "--part-mb", "0.9"]
    command += ["--without", f"{there},{DOUBLE}there", "--params", str(place / "params.yaml")]
    environment = {
        "PYTHONPATH": str(ROOT / "src"),
        "UNDERTOW_LOCAL": str(place / "local"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(place / "wheels"),
    }
    return run([*command, "--model", "tiny", *more], os.environ | environment, expect=expect)


def unpack(bundle: Path, parts: Path, target: Path, python: str = sys.executable, **given: Any):
    command = ["bash", str(bundle / "unpack.sh"), str(parts), str(target)]
    return run(command, os.environ | {"PYTHON": python}, **given)


def run(command: list[str], environment: dict[str, str], expect: int = 0, cwd: Any = None) -> str:
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == expect, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def manifest(bundle: Path) -> dict[str, dict[str, Any]]:
    read = json.loads((bundle / "MANIFEST.json").read_text(encoding="utf-8"))
    return {item["name"]: item for item in read["items"]}


def parts_of(bundle: Path) -> list[str]:
    return [part["name"] for item in manifest(bundle).values() for part in item["parts"]]


@pytest.fixture(scope="module")
def target(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpacked from parts that come one by one, each alone in its folder."""
    target = tmp_path_factory.mktemp("there") / "a folder"
    names = parts_of(place / "bundle")
    for count, name in enumerate(names, 1):
        parts = tmp_path_factory.mktemp("came")
        shutil.copy(place / "bundle" / name, parts)
        said = unpack(place / "bundle", parts, target)
        assert ("ready: " in said) == (count == len(names)), said
        assert ("waiting for " in said) == (count < len(names)), said
    return target


def there(target: Path, command: str, cwd: Path | None = None) -> str:
    """Run in bash what a person there would type, in an environment with nothing of this one."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    text = f"set -e; source '{target}/env.sh'; {command}"
    return run(["bash", "-c", text], environment, cwd=cwd)


@pytest.mark.whole
def test_parts_are_no_larger_than_asked_and_are_the_files_of_the_manifest(place: Path):
    items = manifest(place / "bundle")
    assert list(items) == ["code", "wheels", "weights-tiny"]
    assert len(items["code"]["parts"]) > 1
    for part in (part for item in items.values() for part in item["parts"]):
        assert 0 < (place / "bundle" / part["name"]).stat().st_size == part["size"] <= 900_000
    on_disk = {path.name for path in (place / "bundle").iterdir()}
    assert on_disk == {"MANIFEST.json", "unpack.sh", *parts_of(place / "bundle")}


def test_the_same_files_give_the_same_parts_whenever_they_were_written(tmp_path: Path):
    packed = []
    for moment in (1e9, 1.5e9):
        files = {f"code/{name}": tmp_path / name for name in ("one.py", "two.py")}
        for path in files.values():
            path.write_text("same\n")
            os.utime(path, (moment, moment))
        packed.append(pack_item(tmp_path, "code", files, 4096))
    assert packed[0] == packed[1]
    assert len(packed[0]["parts"]) > 1


@pytest.mark.whole
def test_what_is_carried_is_what_is_needed_there(place: Path):
    carried = {
        name: [f["name"] for f in item["files"]]
        for name, item in manifest(place / "bundle").items()
    }
    assert carried["wheels"] == [
        f"wheels/{DOUBLE}{name}-1.0-py3-none-any.whl" for name in ("below", "extra", "top")
    ]
    assert "code/cli.py" in carried["code"]
    assert "code/data/traits/pessimism/trait.yaml" in carried["code"]
    assert "code/docs/results/planned/draws.yaml" in carried["code"]
    studies = [name for name in carried["code"] if "/docs/results/" in name]
    assert {name.rpartition(".")[2] for name in studies} == {"md", "yaml"}
    assert not [name for name in carried["code"] if "/tests/" in name]
    assert "weights/tiny/model.safetensors" in carried["weights-tiny"]
    assert "weights/tiny/pickled.bin" not in carried["weights-tiny"]


@pytest.mark.slow
def test_a_study_runs_there_on_what_came(place: Path, target: Path, tmp_path: Path):
    """The command line is the carried one, its weights are the carried ones, nothing is asked."""
    study = tmp_path / "a study"
    where = there(
        target,
        f"'{target}/study' '{study}' '{place}/params.yaml'; python -c "
        f"'import undertow, {DOUBLE}extra; print(undertow.__file__)'",
    )
    assert where.strip().startswith(str(target / "code" / "src"))
    assert yaml.safe_load((study / "params.yaml").read_text())["tracking"]["enabled"] is False
    assert "run-cells" in there(target, "python cli.py --help", study)
    there(target, "python cli.py fetch --model tiny; python cli.py direction --model tiny", study)
    assert (study / "results/directions/tiny/direction.safetensors").is_file()


@pytest.mark.whole
def test_what_is_unpacked_is_not_unpacked_again(place: Path, target: Path, tmp_path: Path):
    (target / "code" / "mine").touch()
    assert "unpacked" not in unpack(place / "bundle", tmp_path, target)
    assert (target / "code" / "mine").exists()
    assert [path.suffix for path in (target / ".parts").iterdir()] == [".unpacked"] * 3


@pytest.mark.whole
def test_a_damaged_part_is_named_and_nothing_of_it_unpacked(place: Path, tmp_path: Path):
    shutil.copytree(place / "bundle", tmp_path / "parts")
    part = tmp_path / "parts" / "weights-tiny.001"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    said = unpack(place / "bundle", tmp_path / "parts", tmp_path / "to", expect=1)
    assert "damaged: weights-tiny.001" in said
    assert "unpacked code" in said
    assert list((tmp_path / "to" / "weights").iterdir()) == []
    shutil.copy(place / "bundle" / part.name, part)
    assert "ready: " in unpack(place / "bundle", tmp_path / "parts", tmp_path / "to")


@pytest.mark.whole
def test_another_python_is_refused(place: Path, tmp_path: Path):
    bundle = tmp_path / "bundle"
    shutil.copytree(place / "bundle", bundle)
    text = (bundle / "MANIFEST.json").read_text().replace(f'"python": "{HERE}"', '"python": "3.1"')
    (bundle / "MANIFEST.json").write_text(text)
    assert "PYTHON=python3.1" in unpack(bundle, bundle, tmp_path / "to", expect=1)


@pytest.mark.whole
def test_what_cannot_be_packed_is_said_and_nothing_is_left(place: Path, tmp_path: Path):
    to = tmp_path / "to"
    assert "--without" in pack(place, to, "--with", f"{DOUBLE}none", expect=1)
    assert "use one of: tiny" in pack(place, to, "--model", "tyni", expect=1)
    assert list(tmp_path.iterdir()) == []
    to.mkdir()
    assert "name a new folder" in pack(place, to, expect=1)
