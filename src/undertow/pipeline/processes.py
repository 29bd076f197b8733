"""run-cells in several processes of one machine: each takes seeds of its own, on a card in turn.

A small model leaves most of a card idle. What a process prepares before it trains, it prepares for
all students that it was given, so no two are given the same. Whatever is left when they have ended
(a process that failed, a lock that another held) is for the run that started them.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from undertow.config import Cell
from undertow.lineage.stages import cell_node, model_node, remember_code
from undertow.pipeline.ledger import bases, cells_of
from undertow.study.layout import Study
from undertow.study.sources import say

LOGS = Path(".undertow") / "processes"
MAIN = "from undertow.cli.app import main; main()"
PAUSE = 0.5  # seconds between looks at how far they are
PATIENCE = 10.0  # seconds that a process has to end by itself when it is told to


def shares(cells: Sequence[Cell], processes: int) -> list[list[int]]:
    """The seeds of each process, so that all have about as many students; none without a seed."""
    students = Counter(cell.seed for cell in cells)
    found: list[list[int]] = [[] for _ in range(min(processes, len(students)))]
    for seed, _ in sorted(students.items(), key=lambda one: (-one[1], one[0])):
        least = min(found, key=lambda seeds: sum(students[seed] for seed in seeds))
        least.append(seed)
    return [sorted(seeds) for seeds in found]


def run_processes(
    study: Study, models: Sequence[str] | None, seeds: Sequence[int], processes: int
) -> None:
    """Run what is due of these models' cells in so many processes, and wait for all of them.

    models, seeds: as in `run_all`. Nothing is handed to DVC. How a process ended is said, not
    raised: the cells that it leaves are still due. This process is left with the first card.
    """
    cards = cards_of(study.params.runtime.device)
    if cards:
        os.environ["CUDA_VISIBLE_DEVICES"] = cards[0]
    else:  # as for every other command
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    cells = cells_of(study, list(models or bases(study)), seeds)
    given = shares(cells, processes)
    if len(given) < processes:
        say(f"run-cells: as many processes as seeds, {len(given)} in place of {processes}")
    if len(given) < 2:
        return
    _remember_code(study, cells)
    if cards and len(given) > len(cards) and not _shared_by_mps():
        say(
            "run-cells: processes of one card take turns on it, which gains little; "
            "nvidia-cuda-mps-control -d, given before, lets them share it"
        )
    folder = study.layout.root / LOGS
    folder.mkdir(parents=True, exist_ok=True)
    started: list[tuple[Path, subprocess.Popen[bytes]]] = []
    began = time.time()
    with _told_to_end():
        try:
            for number, own in enumerate(given):
                log = folder / f"{os.getpid()}-{number}.log"
                card = cards[number % len(cards)] if cards else None
                started.append((log, _start(study, models, own, log, card, len(given))))
                where = "" if card is None else f" on GPU {card}"
                say(f"run-cells: seeds {', '.join(map(str, own))}{where}, see {LOGS / log.name}")
            _wait([process for _, process in started], study, cells, began)
        finally:
            _end([process for _, process in started])
    for log, process in started:
        if process.returncode:
            last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
            told = "\n  ".join(last)
            code = process.returncode
            say(f"run-cells: a process ended with {code}, see {LOGS / log.name}:\n  {told}")
    say("run-cells: the processes have ended; what is left is done here")


def _remember_code(study: Study, cells: Sequence[Cell]) -> None:
    """As it is now: this process has loaded it, and runs what is left with it."""
    for model in {study.params.student_base(cell) for cell in cells}:
        for stage in ("fetch", "direction"):
            remember_code(study, model_node(study, stage, model))
    for cell in cells:
        for stage in study.stages_of(cell):
            remember_code(study, cell_node(study, stage, cell))


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Within it, SIGTERM ends this process by an exception, so that the others end with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: Any) -> None:
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _start(
    study: Study,
    models: Sequence[str] | None,
    seeds: Sequence[int],
    log: Path,
    card: str | None,
    processes: int,
) -> "subprocess.Popen[bytes]":
    words = ["run-cells", "--no-commit"]
    words += [word for model in models or () for word in ("--model", model)]
    words += [word for seed in seeds for word in ("--seed", str(seed))]
    above = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, above))}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    if card is not None:
        environment["CUDA_VISIBLE_DEVICES"] = card
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-c", MAIN, *words],
            cwd=study.layout.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )


def _wait(
    processes: Sequence["subprocess.Popen[bytes]"],
    study: Study,
    cells: Sequence[Cell],
    began: float,
) -> None:
    """Wait until all have ended, and count the cells that are judged anew."""
    files = [study.layout.stage(cell, "judge") / "cell.json" for cell in cells]

    def judged() -> int:
        return sum(path.exists() and path.stat().st_mtime >= began for path in files)

    with tqdm(desc="judged", unit="cell", disable=None) as bar:
        while any(process.poll() is None for process in processes):
            bar.update(judged() - bar.n)
            time.sleep(PAUSE)
        bar.update(judged() - bar.n)


def _end(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Leave none behind, whatever has happened here."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    for process in running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        process.kill()
        process.wait()


def cards_of(device: str) -> list[str]:
    """The cards that a process may be given one of, as CUDA_VISIBLE_DEVICES has them."""
    if device not in ("auto", "cuda"):
        return []
    import torch

    count = torch.cuda.device_count()  # of those that CUDA_VISIBLE_DEVICES lets be seen
    named = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count))))
    return [card.strip() for card in named.split(",") if card.strip()][:count]


def _shared_by_mps() -> bool:
    pipe = os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")
    return (Path(pipe) / "control").exists()
