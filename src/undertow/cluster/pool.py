"""The actors of a run: they are given jobs, and replaced where they are lost."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

from undertow.cluster.account import Account
from undertow.cluster.answers import Here, Outcome, Shared, Spent
from undertow.cluster.parcels import Parcel, stays
from undertow.cluster.places import Need, actor, end, living, places
from undertow.cluster.progress import Progress
from undertow.cluster.usage import Use
from undertow.errors import UndertowError
from undertow.plan.jobs import Job, Kind
from undertow.plan.schedule import LONG, TOGETHER, Rates, chosen, hands, holders_first, portion

TRIES = 3
PATIENCE = 300.0  # seconds without any place, before what is left is given up
LOOK = 2.0  # seconds between looks at the nodes
AHEAD = 2  # stages that an actor has been asked for at once, so that it never waits for the driver


class Asked(NamedTuple):
    """What an actor has been asked for: Ray's reference to the answer, and the job of a stage;
    None is all of its queue together, or whether it is there."""

    reference: Any
    job: Job | None


@dataclass(eq=False)
class Place:
    """An actor, and what it works on: what it is asked for, in this order; then its queue."""

    number: int
    actor: Any
    use: Use
    node: str = ""
    held: str = ""
    known: set[Kind] = field(default_factory=set)  # done with the base that is held
    sent: set[str] = field(default_factory=set)  # files that it has
    portion: list[Job] = field(default_factory=list)  # what it was given last
    queue: list[Job] = field(default_factory=list)  # of it, what it has not been asked for
    asked: list[Asked] = field(default_factory=list)
    since: float = 0.0  # its portion began


class Pool:
    """As many actors as fit, whatever becomes of nodes; use it in one thread.

    They start at once, and get to work when the pool has been told what all of them need.
    """

    def __init__(self, ray: ModuleType, need: Need, progress: Progress, *, groups: bool) -> None:
        self._ray, self._need, self._progress = ray, need, progress
        self._shared: Any = None
        self._groups, self._rates = groups, Rates()
        self._sizes: dict[Kind, Shared] = {}  # what came of the last portion of a kind
        self._places: list[Place] = []
        self.uses: list[Use] = []
        self._broken = 0
        self._looked = 0.0
        self._lived = time.monotonic()
        self._nodes: dict[str, str] = {}
        self._look()

    def begin(self, shared: Parcel) -> None:
        """Let the actors begin; shared: what every one of them gets."""
        self._shared = self._ray.put(shared)
        for place in self._places:
            self._greet(place)

    @property
    def busy(self) -> bool:
        return any(place.asked for place in self._places)

    def give(self, account: Account) -> None:
        """Give every actor that waits the next of what is due, and make actors that are missing.

        Raises UndertowError where no actor has come for long.
        """
        if time.monotonic() - self._looked > LOOK:
            self._look()
        for place in holders_first(self._places, account.due):
            while place.node and not place.asked and account.due:
                next_up = self._next_of(place, account)
                if not next_up:
                    break
                place.portion = [job for job in next_up if account.take(job)]
                if place.portion:
                    self._start(place, account)

    def news(self, account: Account, seconds: float) -> bool:
        """Wait for the next answers, at most so long, and take them."""
        waiting = {place.asked[0].reference: place for place in self._places if place.asked}
        if not waiting:
            return False
        answered, _ = self._ray.wait(list(waiting), num_returns=1, timeout=seconds)
        for reference in answered:
            place = waiting[reference]
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
            use = Use(len(self.uses) + 1, time.monotonic())
            self.uses.append(use)
            place = Place(use.worker, actor(self._ray, self._need), use)
            self._places.append(place)
            if self._shared is not None:
                self._greet(place)
        if any(place.node for place in self._places):
            self._lived = self._looked
        elif self._looked - self._lived > PATIENCE:
            raise UndertowError(
                f"no worker has been there for {PATIENCE:.0f} s",
                "see what is wrong with the cluster (ray status), then give the same command "
                "again: what is finished is kept",
            )

    def _greet(self, place: Place) -> None:
        place.asked = [Asked(place.actor.hello.remote(self._shared), None)]

    def _next_of(self, place: Place, account: Account) -> list[Job]:
        crew: dict[str, list[float]] = defaultdict(list)
        for other in self._places:
            if other is not place and other.portion:
                crew[other.held].append(self._free_in(other))
        nodes = {other.node for other in self._places}
        fit = [  # better there again than nowhere
            job for job in account.due if place.node not in job.shunned or nodes <= job.shunned
        ]
        return chosen(
            fit,
            place.held,
            place.known,
            self._rates,
            crew,
            partial(self._most, account),
        )

    def _free_in(self, place: Place) -> float:
        """In how many seconds a busy place will be done; what is overdue may last as long again."""
        usual = self._rates.of(place.portion[0].kind)
        if usual >= LONG:
            return LONG
        return abs(usual * len(place.portion) - (time.monotonic() - place.since))

    def _most(self, account: Account, alike: Sequence[Job]) -> int:
        """How many jobs of a kind this worker takes at once."""
        if not self._groups or alike[0].stage not in TOGETHER:
            return 1
        base = alike[0].base
        found = self._sizes.get(alike[0].kind)
        run = len(account.run_of(alike[0]))
        if found is None:
            crew = sum(not one.portion or one.held == base for one in self._places)
            return portion(len(alike), run, crew, None)
        at_hand = hands(alike, (one.held for one in self._places if not one.portion), self._rates)
        return portion(len(alike), run, at_hand, found.size, kept=found.kept)

    def _start(self, place: Place, account: Account) -> None:
        """Begin with the first jobs of a portion, or with all of it together."""
        first = place.portion[0]
        place.since, place.queue = time.monotonic(), list(place.portion)
        if place.held != first.base:
            place.held, place.known = first.base, set()
        if self._groups and first.stage in TOGETHER:
            run = account.run_of(first)
            # A step has the shape of the whole run's texts; what a writer needs is its own alone.
            inputs = self._inputs(place, account, run if first.stage == "distill" else place.queue)
            mine, cells = ([job.subject for job in jobs] for jobs in (place.queue, run))
            together = place.actor.together.remote(first.stage, mine, cells, inputs)
            place.asked = [Asked(together, None)]
            what = f"{first.stage} of {len(mine)} cells of {first.base}"
            for job in place.queue:
                self._progress.event("started", stage=job.node.name, node=place.node)
            self._progress.works(place.node, place.number, what)
        else:
            self._ask(place, account)

    def _ask(self, place: Place, account: Account) -> None:
        """Ask for the next stages of its portion, so many ahead."""
        while place.queue and len(place.asked) < AHEAD:
            job = place.queue.pop(0)
            inputs = self._inputs(place, account, [job])
            place.asked.append(Asked(place.actor.stage.remote(job.stage, job.subject, inputs), job))
            if not self._groups:
                self._progress.event("started", stage=job.node.name, node=place.node)
        if place.asked and (job_now := place.asked[0].job):
            self._progress.works(place.node, place.number, f"{job_now.node.name}: running")

    def _inputs(self, place: Place, account: Account, jobs: Sequence[Job]) -> Parcel:
        inputs = account.inputs(jobs, place.sent)
        place.sent |= {name for name in inputs if stays(name)}
        return inputs

    def _answered(self, place: Place, account: Account, answer: Any) -> None:
        job = place.asked.pop(0).job
        if not place.node:
            self._is_there(place, answer)
            return
        spent: Spent = answer
        place.use.worked(place.portion[0].stage, spent.seconds, spent.loading)
        if job is None:
            self._prepared(place, account, spent.answer)
        self._ask(place, account)  # before anything else: it is waiting
        if job is not None:
            self._ran(place, account, job, spent)
        if not place.asked:
            self._ended(place)

    def _is_there(self, place: Place, here: Here) -> None:
        names = living(self._ray) | self._nodes
        place.node, self._broken = names.get(here.node, here.node[:4]), 0
        use = place.use
        use.node, use.gpus, use.ready = place.node, here.gpus, time.monotonic()

    def _prepared(self, place: Place, account: Account, shared: Shared) -> None:
        """Its portion was done together: its stages take that up."""
        self._sizes[place.portion[0].kind] = shared
        for job in list(place.queue):
            if job.subject in shared.failed:
                place.queue.remove(job)
                account.fail(job, None, shared.failed[job.subject])

    def _ran(self, place: Place, account: Account, job: Job, spent: Spent) -> None:
        outcome: Outcome = spent.answer
        if outcome.short:
            self._try_again(job, place.node, account, outcome.error or "no memory")
            return
        place.use.jobs += 1
        place.use.cells += job.stage == "distill" and outcome.outputs is not None
        account.came_back(job, outcome, place.node, spent.seconds)

    def _ended(self, place: Place) -> None:
        """Its portion has ended."""
        kind, seconds = place.portion[0].kind, time.monotonic() - place.since
        self._rates.add(kind, seconds, len(place.portion), first=kind not in place.known)
        place.known.add(kind)
        place.portion = []
        self._progress.works(place.node, place.number, None)

    def _lost(self, place: Place, account: Account, error: Exception) -> None:
        """An actor has died, or what it had written was lost with its node."""
        self._places.remove(place)
        place.use.lost = True
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
        running = place.asked[0].job
        waiting = [one.job for one in place.asked[1:] if one.job is not None]
        for job in place.queue if running is None else [running]:
            self._try_again(job, place.node, account, first)
        for job in waiting if running is None else [*waiting, *place.queue]:
            account.again(job)
        self._looked = 0.0

    def _try_again(self, job: Job, node: str, account: Account, reason: str) -> None:
        job.tries += 1
        self._progress.event("lost", stage=job.node.name, node=node, tries=job.tries)
        if job.tries >= TRIES:
            account.fail(
                job,
                None,
                f"{job.node.name} was lost {job.tries} times, on {node} last: "
                f"{reason.splitlines()[0]}\n"
                "  -> see what these nodes lack (memory?), then give the same command again",
            )
            return
        job.shunned.add(node)
        account.again(job)
