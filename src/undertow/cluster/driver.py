"""run-cells --ray: what is due of all models asked for, on all places of a cluster.

The driver alone writes the study's folder, judges and talks to DVC; the workers compute. What a
worker has in flight when it is lost is run again elsewhere; what has come back never is.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path, PurePath

from undertow.cluster.account import Account
from undertow.cluster.parcels import Parcel, pack
from undertow.cluster.places import connected, need_of
from undertow.cluster.pool import Pool
from undertow.cluster.progress import Progress
from undertow.cluster.usage import keep, told, used
from undertow.config import ClassifierJudgeSettings, FolderAdapter, Params
from undertow.config.adapters import FILES
from undertow.pipeline.ledger import CellsRun, Ledger, bases, cells_of
from undertow.plan.jobs import Job, jobs_of
from undertow.study.layout import Study

PAUSE = 0.2  # seconds that the driver waits for news


def run_cells_on_ray(
    study: Study,
    models: Sequence[str] | None = None,
    seeds: Sequence[int] = (),
    *,
    address: str,
    threads: int | None = None,
    actors: int | None = None,
    commit: bool = True,
    events: bool = False,
) -> CellsRun:
    """Run what is due of these models' cells on a Ray cluster and hand it to DVC, cell by cell.

    models: every base of the grid where none is named. address: of the cluster, auto, or local
    for one that lasts as long as this call. threads: CPUs of an actor. actors: how many at most;
    None for as many as fit. events: JSON lines on stdout.
    Raises ConfigError where the cluster cannot give what is asked for.
    """
    models = list(dict.fromkeys(models or bases(study)))
    cells = cells_of(study, models, seeds)
    stdout = sys.stdout
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),  # Ray prints hundreds of lines there of every lost node
        connected(address) as ray,
        ThreadPoolExecutor(max_workers=1) as recorder,
    ):
        need = need_of(ray, study.params.runtime.device, threads, actors)
        groups = bool(need.gpus) or study.params.runtime.training == "together"
        progress = Progress(len(cells), events=stdout if events else None)
        pool = Pool(ray, need, progress, groups=groups)  # starts while the rest is looked at
        account: Account | None = None
        started = time.monotonic()
        try:
            jobs = jobs_of(study, models, cells, groups=groups)
            ledger = Ledger(study, models, [job.node for job in jobs], recorder, commit=commit)
            pool.begin(_shared(study, jobs))
            away = isinstance(study.params.judging.judge, ClassifierJudgeSettings)
            account = Account(study, ledger, jobs, progress, judges_away=away)
            while account.unfinished:
                account.settle()
                pool.give(account)
                news = pool.news(account, PAUSE)
                if not news and not pool.busy:
                    time.sleep(PAUSE)
        finally:
            pool.close()
            if account is not None:
                account.close()
            progress.close()
            use = used(pool.uses, started)
            keep(study.layout.root, use)
        for one, line in zip(use.workers, told(use), strict=True):
            progress.event("worker", **one.model_dump(), cells_seconds=use.cells_seconds)
            progress.tell(line)
        done = ledger.outcome()
        progress.event("ended", ran=len(done.ran), failed=sorted(done.failed))
        return done


def _shared(study: Study, jobs: Sequence[Job]) -> Parcel:
    """What every worker gets: the parameters, the pipeline, and the data that the jobs read."""
    data = {dep for job in jobs for dep in job.node.deps if dep.startswith("data/")}
    data |= set(_adapter_files(study.params))
    return pack(study.layout.root, ["params.yaml", "dvc.yaml", *sorted(data)])


def _adapter_files(params: Params) -> Iterator[str]:
    """Of teachers' adapters that lie inside the repository; any other is on every machine."""
    for arm in params.grid.adapters:
        for spec in params.adapters[arm].values():
            path = PurePath(spec.path) if isinstance(spec, FolderAdapter) else None
            if path and not path.is_absolute() and path.parts[0] not in ("..", "~"):
                yield from (str(path / name) for name in FILES)
