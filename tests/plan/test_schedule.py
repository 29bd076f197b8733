"""The rule by which many workers share a run's jobs, and the wall time that follows from it."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from undertow.models.sharing import dealt
from undertow.pipeline.ledger import bases
from undertow.plan.jobs import Job, Kind, jobs_of
from undertow.plan.schedule import Rates, chosen, hands, holders_first, portion
from undertow.plan.simulate import Simulated, Times, simulate
from undertow.study.layout import Study

ROOT = Path(__file__).resolve().parents[2]
SMALL, LARGE = "smollm2-135m-instruct", "qwen25-coder-05b-instruct"
SECONDS = {"fetch": 8.0, "direction": 6.0, "steer": 1.4, "pass-on": 1.4, "distill": 2.9}
SETUP = {"direction": 8.0, "steer": 6.0, "distill": 14.0}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The preset small, without results."""
    return opened(tmp_path_factory.mktemp("small"))


def opened(root: Path, **grid: Any) -> Study:
    params = yaml.safe_load((ROOT / "presets" / "small.yaml").read_text(encoding="utf-8"))
    params["grid"] |= grid
    params["recipes"]["again"] = {}
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    for name in ("data", "dvc.yaml", "src"):
        (root / name).symlink_to(ROOT / name)
    return Study.open(root)


def times(size: int | None = 6) -> Times:
    """About what docs/gpu.md measured for the smaller model; the larger one takes twice as long."""

    def by(base: str) -> float:
        return 2.0 if base == LARGE else 1.0

    return Times(
        job=lambda job: SECONDS[job.stage] * by(job.base),
        setup=lambda kind, first: SETUP.get(kind[0], 0.0),
        size=lambda kind: size,
    )


def run(study: Study, workers: int, size: int | None = 6) -> Simulated:
    jobs = jobs_of(study, bases(study), study.params.all_cells(), groups=True)
    return simulate(jobs, workers, times(size))


def test_two_gpus_take_little_more_than_half_the_time_and_both_are_busy(small: Study):
    one, two = run(small, 1), run(small, 2)
    assert sum(one.busy) == pytest.approx(one.wall)
    assert one.wall / two.wall > 1.85
    assert all(busy / two.wall > 0.9 for busy in two.busy)


def test_more_gpus_never_take_longer_and_end_at_the_longest_chain(small: Study):
    walls = [run(small, workers, None).wall for workers in (1, 2, 4, 8, 16, 64, 1000)]
    assert all(after <= before * 1.02 for before, after in pairwise(walls))
    # fetch, direction, one teacher, one student of the larger model
    longest = 2 * (8 + 6 + 1.4 + 2.9) + 8 + 6 + 14
    assert walls[-1] == pytest.approx(longest)


def test_rounds_come_one_after_the_other(tmp_path: Path):
    study = opened(tmp_path, students=["plain"], rounds=[{"student": "again", "after": "plain"}])
    # What a round adds to the chain: its student writes, and its student is trained.
    assert run(study, 1000, None).wall == pytest.approx(2 * 18.3 + 28 + 2 * (1.4 + 2.9) + 14)


def test_nobody_begins_with_a_base_whose_crew_is_done_sooner_alone(small: Study):
    jobs = jobs_of(small, bases(small), small.params.all_cells(), groups=True)
    left = [job for job in jobs if job.kind == ("distill", LARGE, 1, LARGE)][:6]
    rates = Rates()
    rates.add(left[0].kind, 32.0, 6, first=True)
    rates.add(left[0].kind, 12.0, 6, first=False)
    assert rates.of(left[0].kind) == 2.0
    assert rates.setup(left[0].kind) == 20.0

    def helped(free_in: float, known: frozenset[Kind] = frozenset()) -> list[Job]:
        return chosen(left, SMALL, known, rates, {LARGE: [free_in]}, lambda alike: 6)

    assert helped(5.0) == []  # alone: 5 + 12 s; with help: 20 + 12
    assert helped(60.0) == left
    assert chosen(left, LARGE, frozenset(), rates, {LARGE: [5.0]}, lambda alike: 6) == left


def test_an_idle_worker_counts_where_beginning_with_the_base_repays(small: Study):
    jobs = jobs_of(small, bases(small), small.params.all_cells(), groups=True)
    due = [job for job in jobs if job.kind == ("distill", LARGE, 1, LARGE)][:6]

    def counted(setup: float, *idle: str) -> int:
        rates = Rates()
        rates.add(due[0].kind, 24.0, 6, first=False)
        rates.add(due[0].kind, 24.0 + setup, 6, first=True)
        return hands(due, idle, rates)

    # Six jobs of 4 s: 12 s and what it takes to begin, or 24 s alone.
    assert counted(30.0, SMALL, LARGE) == 1
    assert counted(5.0, SMALL, LARGE) == 2
    assert counted(30.0, LARGE, SMALL, LARGE) == 2
    assert counted(30.0, SMALL, SMALL, "") == 3  # whoever begins has to set up


def test_who_holds_a_base_that_is_due_is_asked_before_others(small: Study):
    jobs = jobs_of(small, bases(small), small.params.all_cells(), groups=True)
    due = [job for job in jobs if job.base == LARGE]
    workers = [SimpleNamespace(held=base) for base in ("", SMALL, LARGE, SMALL, LARGE)]
    ordered = holders_first(workers, due)
    assert [worker.held for worker in ordered] == [LARGE, LARGE, "", SMALL, SMALL]


def test_groups_are_of_a_size_that_can_be_dealt_out():
    assert [dealt(24, most) for most in (1, 2, 9, 28)] == [1, 2, 6, 6]
    assert [dealt(number, 28) for number in (1, 7, 8, 16, 48)] == [1, 7, 4, 4, 12]
    # No group is broken for two workers, and no worker waits where there are many.
    assert portion(24, 24, 2, None) == portion(24, 24, 2, 6) == 6
    assert portion(24, 24, 12, 6) == 2
    # Where nothing captured can be kept, a worker takes its whole share.
    assert portion(24, 24, 2, 1, kept=False) == 12
    assert portion(100, 100, 2, 6, kept=False) == 12
