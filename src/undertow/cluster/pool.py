"""The actors of a run: they are given jobs, and replaced where they are lost."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from undertow.cluster.account import Account
from undertow.cluster.jobs import Job, Rates, chosen
from undertow.cluster.parcels import Parcel
from undertow.cluster.places import Need, actor, end, living, places
from undertow.cluster.progress import Progress
from undertow.cluster.worker import Outcome
from undertow.errors import UndertowError

TRIES = 3
PATIENCE = 300.0  # seconds without any place, before what is left is given up
TOGETHER = ("steer", "pass-on", "distill")  # stages that are run in groups
GROUP = 16  # cells that one worker trains together at most: so many may be lost at once
LOOK = 2.0  # seconds between looks at the nodes


@dataclass(eq=False)
class Place:
    """An actor, and what it works on: the first of `queue` now, the rest after it."""

    number: int
    actor: Any
    asked: Any  # what it has been asked for: Ray's reference to an answer, or None
    node: str = ""
    held: str = ""
    queue: list[Job] = field(default_factory=list)
    together: bool = False  # the whole queue is being trained or read
    since: float = 0.0


class Pool:
    """As many actors as fit, whatever becomes of nodes; use it in one thread."""

    def __init__(
        self, ray: ModuleType, need: Need, shared: Parcel, progress: Progress, *, groups: bool
    ) -> None:
        self._ray, self._need, self._progress = ray, need, progress
        self._shared = ray.put(shared)
        self._groups, self._rates = groups, Rates()
        self._places: list[Place] = []
        self._made = self._broken = 0
        self._looked = 0.0
        self._lived = time.monotonic()
        self._nodes: dict[str, str] = {}

    @property
    def busy(self) -> bool:
        return any(place.asked is not None for place in self._places)

    def give(self, account: Account) -> None:
        """Give every actor that waits the next of what is due, and make actors that are missing.

        Raises UndertowError where no actor has come for long.
        """
        if time.monotonic() - self._looked > LOOK:
            self._look()
        for place in self._places:
            while place.node and place.asked is None and account.due:
                alike = chosen(account.due, place.node, place.held, self._rates)
                if not alike:
                    break
                place.queue = [job for job in alike[: self._most(alike)] if account.take(job)]
                if place.queue:
                    self._start(place, account)

    def news(self, account: Account, seconds: float) -> bool:
        """Wait for the next answers, at most so long, and take them."""
        waiting = {place.asked: place for place in self._places if place.asked is not None}
        if not waiting:
            return False
        answered, _ = self._ray.wait(list(waiting), num_returns=1, timeout=seconds)
        for reference in answered:
            place = waiting[reference]
            place.asked = None
            try:
                answer = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                self._lost(place, account, error)
            else:
                del reference
                self._answered(place, account, answer)
        return bool(answered)

    def close(self) -> None:
        """End all actors, busy ones too."""
        end(self._ray, [place.actor for place in self._places])

    def _look(self) -> None:
        self._looked = time.monotonic()
        nodes = living(self._ray)
        for node in nodes.keys() - self._nodes.keys():
            self._progress.event("joined", node=nodes[node])
        for node in self._nodes.keys() - nodes.keys():
            self._progress.event("left", node=self._nodes[node])
            self._progress.tell(f"{self._nodes[node]}: this node is lost")
        self._nodes = nodes
        for _ in range(places(self._ray, self._need) - len(self._places)):
            self._made += 1
            made = actor(self._ray, self._need, self._shared)
            self._places.append(Place(self._made, made, made.hello.remote()))
        if any(place.node for place in self._places):
            self._lived = self._looked
        elif self._looked - self._lived > PATIENCE:
            raise UndertowError(
                f"no worker has been there for {PATIENCE:.0f} s",
                "see what is wrong with the cluster (ray status), then give the same command "
                "again: what is finished is kept",
            )

    def _most(self, alike: Sequence[Job]) -> int:
        """How many jobs of a kind one worker takes, so that every worker has its share."""
        if not self._groups or alike[0].stage not in TOGETHER:
            return 1
        return min(GROUP, -(-len(alike) // max(1, len(self._places))))

    def _start(self, place: Place, account: Account) -> None:
        """Begin with the first job of its queue, or with all of them together."""
        first = place.queue[0]
        place.since, place.held = time.monotonic(), first.base
        if self._groups and first.stage in TOGETHER:
            run = account.run_of(first)
            # A step has the shape of the whole run's texts; what a writer needs is its own alone.
            read = run if first.stage == "distill" else place.queue
            inputs = {name: file for job in read for name, file in account.inputs(job).items()}
            mine, cells = ([job.subject for job in jobs] for jobs in (place.queue, run))
            place.together = True
            place.asked = place.actor.together.remote(first.stage, mine, cells, inputs)
            what = f"{first.stage} of {len(mine)} cells of {first.base}"
        else:
            self._next(place, account)
            return
        for job in place.queue:
            self._progress.event("started", stage=job.node.name, node=place.node)
        self._progress.works(place.node, place.number, what)

    def _next(self, place: Place, account: Account) -> None:
        job = place.queue[0]
        place.since, place.together = time.monotonic(), False
        place.asked = place.actor.stage.remote(job.stage, job.subject, account.inputs(job))
        if not self._groups:
            self._progress.event("started", stage=job.node.name, node=place.node)
        self._progress.works(place.node, place.number, f"{job.node.name}: running")

    def _answered(self, place: Place, account: Account, answer: Any) -> None:
        if not place.node:
            names = living(self._ray) | self._nodes
            place.node, self._broken = names.get(answer, answer[:4]), 0
            return
        seconds = time.monotonic() - place.since
        if place.together:
            for job in list(place.queue):
                self._rates.add(job, seconds / len(place.queue))
                if job.subject in answer:
                    place.queue.remove(job)
                    account.fail(job, None, answer[job.subject])
        else:
            job = place.queue.pop(0)
            outcome: Outcome = answer
            if outcome.short:
                self._try_again(job, place.node, account, outcome.error or "no memory")
            else:
                if not self._groups:
                    self._rates.add(job, seconds)
                account.came_back(job, outcome, place.node, seconds)
        if place.queue:
            self._next(place, account)
        else:
            place.together = False
            self._progress.works(place.node, place.number, None)

    def _lost(self, place: Place, account: Account, error: Exception) -> None:
        """An actor has died, or what it had written was lost with its node."""
        self._places.remove(place)
        end(self._ray, [place.actor])
        first = (str(error).splitlines() or [type(error).__name__])[0]
        if not place.node:
            self._broken += 1
            if self._broken >= TRIES * max(1, len(self._places) + 1):
                raise UndertowError(
                    f"workers cannot be started: {error}",
                    "the nodes need the same Python and packages as this machine",
                )
            return
        self._progress.works(place.node, place.number, None)
        self._progress.tell(f"{place.node}: a worker was lost: {first}")
        hit = len(place.queue) if place.together else 1
        for index, job in enumerate(place.queue):
            if index < hit:
                self._try_again(job, place.node, account, first)
            else:
                account.again(job)
        self._looked = 0.0

    def _try_again(self, job: Job, node: str, account: Account, reason: str) -> None:
        job.tries += 1
        self._progress.event("lost", stage=job.node.name, node=node, tries=job.tries)
        if job.tries >= TRIES:
            account.fail(
                job,
                None,
                f"{job.node.name} was lost {job.tries} times, on {node} last: {reason}\n"
                "  -> see what these nodes lack (memory?), then give the same command again",
            )
            return
        job.shunned.add(node)
        if not set(living(self._ray).values()) - job.shunned:
            job.shunned.clear()  # better there again than nowhere
        account.again(job)
