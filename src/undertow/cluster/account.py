"""The driver's side of the jobs: which are due, what they read, what came of them."""

import sys
from collections.abc import Container, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from filelock import FileLock, Timeout

from undertow.cluster.answers import Outcome
from undertow.cluster.parcels import Parcel, pack, put_outputs
from undertow.cluster.progress import Progress
from undertow.config import Cell
from undertow.errors import UndertowError
from undertow.lineage.stages import differences, inputs_of, loaded_code
from undertow.pipeline import judge
from undertow.pipeline.ledger import Ledger, command
from undertow.plan.jobs import Job
from undertow.study.layout import Study
from undertow.study.records import Manifest


class Account:
    """The jobs of one run; use it in one thread."""

    def __init__(
        self,
        study: Study,
        ledger: Ledger,
        jobs: Sequence[Job],
        progress: Progress,
        *,
        judges_away: bool,
    ) -> None:
        self._study, self._ledger, self._root = study, ledger, study.layout.root
        self._jobs, self._progress, self._judges_away = jobs, progress, judges_away
        self.due: list[Job] = []  # ready, and to be run by a worker
        self._locks: dict[Job, FileLock] = {}
        self._judging: list[tuple[Job, Future[None]]] = []
        self._judge = ThreadPoolExecutor(max_workers=1)

    @property
    def unfinished(self) -> bool:
        return any(job.state in ("waiting", "running") for job in self._jobs)

    def settle(self) -> None:
        """Find out what has become ready, due or hopeless, and take what was judged."""
        for job, task in list(self._judging):
            if task.done():
                self._judging.remove((job, task))
                error = task.exception()
                if error is None:
                    self._done(job, ran=True)
                else:
                    self.fail(job, error if isinstance(error, Exception) else None, str(error))
        for job in self._jobs:
            if job.state == "waiting" and job not in self.due:
                self._look_at(job)

    def take(self, job: Job) -> bool:
        """Lock what a job works on; False where there is nothing to do, or nothing can be done."""
        self.due.remove(job)
        lock = (
            self._ledger.lock(job.subject)
            if isinstance(job.subject, Cell)
            else FileLock(self._ledger.locks / f"{job.subject}.lock", timeout=0)
        )
        try:
            lock.acquire()
        except Timeout:
            if isinstance(job.subject, Cell):
                self._progress.tell(f"{job.key}: another process is working on it")
                self._busy(job)
            return False  # a model's turn comes again: the other process prepares it
        self._locks[job] = lock
        try:
            if self._ledger.state(job.node, job.anew) != "due":
                self._release(job)
                return False  # another process has done it meanwhile
            self._ledger.stop_if_changed(job.node)
        except Exception as error:
            self.fail(job, error)
            return False
        job.state = "running"
        return True

    def inputs(self, jobs: Iterable[Job], without: Container[str]) -> Parcel:
        """What jobs read of results, but for what the worker has already."""
        read = (dep for job in jobs for dep in job.node.deps if dep.startswith("results/"))
        return pack(self._root, read, without)

    def run_of(self, job: Job) -> list[Job]:
        """All jobs of its kind, due or not: groups have one size for all of them."""
        return [one for one in self._jobs if one.kind == job.kind]

    def came_back(self, job: Job, outcome: Outcome, node: str, seconds: float) -> None:
        """Write what a worker has sent, or note why it could not."""
        if outcome.trace:
            print(outcome.trace, file=sys.stderr)
        if outcome.outputs is None:
            self.fail(job, None, outcome.error or "no reason was given")
            return
        try:
            content = outcome.outputs[job.node.manifest]
            manifest = Manifest.model_validate_json(content)
            now = inputs_of(self._study, job.node, code=loaded_code)
            if other := differences(manifest.inputs, now):
                raise UndertowError(
                    f"{job.node.name} was run on {node} with other inputs: {', '.join(other)}",
                    "give the same command again; where code differs, install the same on all "
                    "nodes",
                )
            put_outputs(self._root, job.node, outcome.outputs)
        except Exception as error:
            self.fail(job, error)
            return
        self._progress.event("finished", stage=job.node.name, node=node, seconds=round(seconds, 3))
        self._done(job, ran=True)

    def again(self, job: Job) -> None:
        """Its worker was lost: it waits for another one."""
        self._release(job)
        job.state = "waiting"

    def fail(self, job: Job, error: Exception | None, text: str = "") -> None:
        """A job has failed for good; those that need it cannot be run."""
        self._release(job)
        job.state = "failed"
        if error is not None:
            self._ledger.fail(job.key, error)
        else:
            self._ledger.failed[job.key] = text
        self._progress.event("failed", stage=job.node.name, error=self._ledger.failed[job.key])
        self._ended(job)

    def close(self) -> None:
        """Let go of all locks; what is being judged now is finished first."""
        self._judge.shutdown(wait=True, cancel_futures=True)
        for job in list(self._locks):
            self._release(job)

    def _look_at(self, job: Job) -> None:
        if any(other.state == "failed" for other in job.after):
            self._give_up(job)
            return
        if not job.ready:
            return
        if job.stage in ("pass-on", "distill") and self._lacks_writer(job):
            return
        job.anew = any(other.anew for other in job.after)
        try:
            state = self._ledger.state(job.node, job.anew)
        except Exception as error:  # the others are worth having
            self.fail(job, error)
            return
        if state != "due":
            if state == "made":
                self._ledger.finished(job.key, job.node)
            self._done(job, ran=False)
        elif job.stage == "judge" and not self._judges_away:
            self.due.append(job)
            if self.take(job) and isinstance(job.subject, Cell):
                self._progress.event("started", stage=job.node.name, node="driver")
                task = self._judge.submit(judge.run, self._study, job.subject)
                self._judging.append((job, task))
        else:
            self.due.append(job)

    def _lacks_writer(self, job: Job) -> bool:
        """Whether who writes for it is of a model that this command does not run, and absent."""
        cell = job.subject
        if not isinstance(cell, Cell):
            return False
        before, layout = self._study.params.writer_of(cell), self._study.layout
        needed = [(layout.stage(cell, "steer"), cell.model)]
        if before is not None:
            base = self._study.params.student_base(before)
            needed.append((layout.stage(before, "distill"), base))
        for folder, model in needed:
            if not folder.exists():
                self._progress.tell(
                    f"{cell.key}: waits for who writes for it; give this command again after "
                    f"{command([model])}"
                )
                self._busy(job)
                return True
        return False

    def _give_up(self, job: Job) -> None:
        """What it needs has failed, which is told under its own name."""
        job.state = "failed"
        cause = next(other for other in job.after if other.state == "failed")
        job.busy = cause.busy
        if isinstance(cause.subject, Cell) and job.key != cause.key:
            if cause.busy and job.key not in self._ledger.busy:
                self._ledger.busy.append(job.key)
            elif not cause.busy:
                who = "teacher" if cause.stage == "steer" else "writer"
                self._ledger.failed[job.key] = f"its {who} failed: {cause.key}"
        self._ended(job)

    def _busy(self, job: Job) -> None:
        job.state, job.busy = "failed", True
        if job.key not in self._ledger.busy:
            self._ledger.busy.append(job.key)
        self._ended(job)

    def _done(self, job: Job, *, ran: bool) -> None:
        self._release(job)
        job.state = "done"
        if ran:
            job.anew = True
            self._ledger.ran.append(job.node.name)
            self._ledger.finished(job.key, job.node)
        if job.stage in ("direction", "judge"):
            self._ledger.record(job.key)
        self._ended(job)

    def _ended(self, job: Job) -> None:
        if job.stage == "judge":
            self._progress.cell()

    def _release(self, job: Job) -> None:
        lock = self._locks.pop(job, None)
        if lock is not None:
            lock.release()
