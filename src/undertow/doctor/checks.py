"""Is this machine ready? One check per thing that goes wrong, each with what to do about it.

Looks only: nothing is downloaded, created or printed, and no secret is shown.
"""

import configparser
import os
import re
import shutil
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from huggingface_hub import constants, get_token

from undertow.config import Params
from undertow.doctor import footprint, packages
from undertow.errors import SourceError, UndertowError
from undertow.lineage.git import Repository
from undertow.lineage.objects import differs
from undertow.study.records import Record
from undertow.study.sources import ELSEWHERE, cache_folder
from undertow.texts.yaml import read_yaml

GIB = 1 << 30
STUDY_BYTES = 2 * GIB  # responses, adapters and the tracking store of a study, generously


class Check(Record):
    """One finding; `remedy` says what to do where the state is not ok."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str | None = None


def checks(root: Path, params: Params | None) -> list[Check]:
    """All findings for the repository at `root`; without params, those that need none."""
    found = [
        _python(),
        _packages(root),
        _device(params),
        _dvc_remote(root),
        _data(root),
        _store(root),
        _git(root),
    ]
    if params is not None:
        try:
            found += [_token(params), _disk(root, params), *_cache(params)]
        except SourceError as error:  # no home folder: where files would go is not known
            text = error.message
            found.append(Check(name="cache", state="fail", found=text, remedy=error.remedy))
        except (PermissionError, NotADirectoryError) as error:  # somebody else's home, or none
            text = f"{error.filename}: {error.strerror}"
            found.append(Check(name="cache", state="fail", found=text, remedy=ELSEWHERE))
    return found


def checks_text(found: Sequence[Check]) -> str:
    """A line for each check, and one below it where something is to be done."""
    lines = []
    for check in found:
        lines.append(f"{check.state:<5} {check.name:<14} {check.found}")
        if check.remedy:
            lines.append(f"      -> {check.remedy}")
    return "\n".join(lines)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 11):
        return Check(name="python", state="ok", found=version)
    state: Literal["warn", "fail"] = "warn" if sys.version_info >= (3, 11) else "fail"
    return Check(
        name="python",
        state=state,
        found=f"{version}; the packages are pinned for 3.11",
        remedy="make the environment with Python 3.11: remove .venv, then make test",
    )


def _packages(root: Path) -> Check:
    """Installed versions against the constraints file, without importing any package."""
    constraints = root / "constraints.txt"
    if not constraints.exists():
        return Check(
            name="packages",
            state="warn",
            found=f"{constraints.name} is missing",
            remedy="git checkout constraints.txt",
        )
    pinned = packages.look_up_pins(constraints.read_text(encoding="utf-8"), root)
    extras = "; " + _few("without (tracking, not needed)", pinned.extras) if pinned.extras else ""
    if pinned.absent or pinned.other:
        groups = {"the stages lack": pinned.absent, "of other versions": pinned.other}
        return Check(
            name="packages",
            state="fail" if pinned.absent else "warn",
            found="; ".join(_few(what, names) for what, names in groups.items() if names) + extras,
            remedy="python -m pip install -c constraints.txt -e .",
        )
    found = f"{pinned.matching} at their pinned versions{extras}"
    return Check(name="packages", state="ok", found=found)


def _few(what: str, names: Sequence[str], most: int = 5) -> str:
    """A group of names in a few words: the first ones, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{what} {', '.join(names[:most])}{more}"


def _device(params: Params | None) -> Check:
    try:
        import torch

        from undertow.models.loading import pick_device
    except ImportError as error:
        return Check(
            name="device",
            state="fail",
            found=f"PyTorch or transformers cannot be imported: {error}",
            remedy="python -m pip install -c constraints.txt -e .",
        )
    try:
        device = pick_device(params.runtime.device if params else "auto")
    except UndertowError as error:
        return Check(name="device", state="fail", found=error.message, remedy=error.remedy)
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        return Check(
            name="device", state="ok", found=f"{card.name}, {card.total_memory / GIB:.0f} GiB"
        )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    found = f"CPU, {torch.get_num_threads()} threads, {memory:.0f} GiB"
    if params and params.distillation.quantization == "nf4":
        return Check(
            name="device",
            state="fail",
            found=f"{found}; distillation.quantization nf4 needs CUDA",
            remedy="run on a machine with a GPU, or: python cli.py preset use demo",
        )
    return Check(name="device", state="ok", found=found)


def _token(params: Params) -> Check:
    gated = footprint.still_gated(params)
    there = "set" if get_token() else "not set"
    if gated and there == "not set":
        return Check(
            name="hub token",
            state="warn",
            found=f"not set, and {', '.join(gated)} must be unlocked on the hub first",
            remedy="accept the licence on the model's hub page and set HF_TOKEN, or put a copy of "
            "the checkpoint into a folder and set UNDERTOW_LOCAL to the folder above it",
        )
    return Check(
        name="hub token",
        state="ok",
        found=there if gated else f"{there}; no model of this grid waits for one",
    )


def _dvc_remote(root: Path) -> Check:
    settings = configparser.ConfigParser()
    settings.read([root / ".dvc" / "config", root / ".dvc" / "config.local"], encoding="utf-8")
    remotes = {
        match[1]: settings[section].get("url", "")
        for section in settings.sections()
        if (match := re.fullmatch(r"""'?remote "(.+)"'?""", section))
    }
    if not remotes:
        return Check(
            name="dvc remote",
            state="fail",
            found="none is configured, so the bundled data cannot be pulled",
            remedy="git checkout .dvc/config",
        )
    gone = [
        name
        for name, url in remotes.items()
        if url and not urlsplit(url).scheme and not (root / ".dvc" / url).exists()
    ]
    if gone:
        return Check(
            name="dvc remote",
            state="warn",
            found=f"the folder of {', '.join(gone)} does not exist",
            remedy=f"dvc remote modify {gone[0]} url PATH",
        )
    default = settings.get("core", "remote", fallback="no default")
    return Check(name="dvc remote", state="ok", found=f"{', '.join(remotes)} ({default})")


def _data(root: Path) -> Check:
    pointers = sorted((root / "data").rglob("*.dvc"))
    outs = [
        (pointer.parent / out["path"], out.get("size"), out.get("md5"))
        for pointer in pointers
        for out in (read_yaml(pointer.read_text(encoding="utf-8")) or {}).get("outs", [])
    ]
    if not outs:
        return Check(
            name="data",
            state="fail",
            found="no .dvc files under data",
            remedy="git checkout data",
        )
    there = {path.relative_to(root).as_posix(): (path, *known) for path, *known in outs}
    missing = [name for name, (path, *_) in there.items() if _is_empty(path)]
    # What is there and differs is somebody's work, and pulling would ask to replace it.
    changed = [
        name
        for name, (path, *known) in there.items()
        if name not in missing and differs(path, *known)
    ]
    found = [f"missing: {', '.join(missing)}"] if missing else []
    remedies = [f"dvc pull {' '.join(f'{name}.dvc' for name in missing)}"] if missing else []
    if changed:
        names = " ".join(changed)
        found.append(f"changed since it was tracked: {', '.join(changed)}")
        remedies.append(
            f"dvc add {names} keeps the changes; to throw them away: dvc checkout --force {names}"
        )
    if found:
        return Check(
            name="data",
            state="fail" if missing else "warn",
            found="; ".join(found),
            remedy="; ".join(remedies),
        )
    return Check(name="data", state="ok", found=f"{len(outs)} tracked, all pulled")


def _is_empty(path: Path) -> bool:
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def _disk(root: Path, params: Params) -> Check:
    """Free space against what the grid's models and a study still take, per file system."""
    needs, unknown = footprint.needs(params)
    needs[root] = needs.get(root, 0) + STUDY_BYTES
    systems: dict[int, list[Path]] = defaultdict(list)
    for folder in needs:
        systems[_existing(folder).stat().st_dev].append(folder)
    texts, short = [], False
    for folders in systems.values():
        free = shutil.disk_usage(_existing(folders[0])).free
        need = sum(needs[folder] for folder in folders)
        short |= free < need
        names = ", ".join(map(str, folders))
        texts.append(f"{free / GIB:.1f} GiB free of about {need / GIB:.1f} needed for {names}")
    if unknown:
        texts.append(f"the size of {', '.join(unknown)} is not known")
    return Check(
        name="disk",
        state="fail" if short else "ok",
        found="; ".join(texts),
        remedy="free some space, or set UNDERTOW_CACHE and HF_HOME to folders with room"
        if short
        else None,
    )


def _cache(params: Params) -> Iterator[Check]:
    """Nothing where files that are fetched can be put where they go."""
    kinds = {params.model_spec(name).weights.kind for name in params.grid.models}
    folders = [cache_folder()] if kinds - {"folder"} else []
    folders += [Path(constants.HF_HUB_CACHE)] if "hub" in kinds else []
    for folder in folders:
        there = _existing(folder)
        if not (there.is_dir() and os.access(there, os.W_OK)):
            found = f"{folder} cannot be written to"
            yield Check(name="cache", state="fail", found=found, remedy=ELSEWHERE)


def _existing(folder: Path) -> Path:
    return next(part for part in (folder, *folder.parents) if part.exists())


def _store(root: Path) -> Check:
    """The tracking store: reachable, and not shadowed by the old file layout."""
    stray = sorted(path.parent for path in (root / "mlruns").glob("*/meta.yaml"))
    stray = [folder for folder in stray if folder.name.isdigit()]
    if stray:
        names = " ".join(folder.relative_to(root).as_posix() for folder in stray)
        return Check(
            name="tracking store",
            state="fail",
            found=f"{names} makes MLflow fall back to its old file store",
            remedy=f"move {names} out of mlruns",
        )
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri and not uri.startswith("sqlite:///"):
        scheme, place = urlsplit(uri).scheme or "file", urlsplit(uri).hostname or ""
        return Check(
            name="tracking store",
            state="ok",
            found=f"{scheme} {place}".strip() + " from MLFLOW_TRACKING_URI, not contacted",
        )
    path = Path(uri.removeprefix("sqlite:///")) if uri else root / "mlruns" / "mlflow.db"
    if not path.exists():
        return Check(name="tracking store", state="ok", found=f"{path}, made by the first run")
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            (runs,) = connection.execute("select count(*) from runs").fetchone()
    except sqlite3.Error as error:
        return Check(
            name="tracking store",
            state="fail",
            found=f"{path} cannot be read: {error}",
            remedy=f"move {path} away, then: python cli.py track sync",
        )
    return Check(name="tracking store", state="ok", found=f"{path}, {runs} runs")


def _git(root: Path) -> Check:
    state = Repository(root).ask("status", "--porcelain", "--branch")
    if state.reason:
        found = f"{state.reason}; runs cannot name their commit"
        return Check(name="git", state="warn", found=found, remedy=state.remedy)
    branch, *changed = state.text.splitlines()
    where = branch.removeprefix("## ").split("...")[0]
    if changed:
        return Check(
            name="git",
            state="warn",
            found=f"{where}, {len(changed)} uncommitted change(s); runs are tagged dirty",
            remedy="commit before a run that you want to compare with others",
        )
    return Check(name="git", state="ok", found=f"{where}, clean")
