"""rehearse: a preset from its first check to its published folder, on random weights.

The models have the shapes of the preset's own, or small ones of the same families and depth, and
lie where UNDERTOW_LOCAL is looked up, so that the preset's `models` stay as they are. No network
and no key is needed. What is rehearsed is that each step ends, how long it takes and what memory it
holds; no number that comes out of a model means anything.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch

from undertow.analysis.conclude import conclude
from undertow.bench.checkpoints import LLAMA2, QWEN, write_checkpoint
from undertow.bench.rehearsed import GIB, Rehearsal, StageRecord, StepRecord, lines
from undertow.bench.shapes import SHAPES, small
from undertow.bench.stand_ins import Asked, beside_local, stand_in
from undertow.config import Cell, HubWeights, Params, load
from undertow.doctor.checks import checks
from undertow.errors import ConfigError, UndertowError
from undertow.lineage.stages import Node, cell_node, model_node, recorded
from undertow.models.loading import pick_device
from undertow.pipeline import audit
from undertow.pipeline.meter import peak_memory
from undertow.pipeline.run_cells import run_all
from undertow.plan.plan import Wishes, make_plan
from undertow.plan.text import describe_cost
from undertow.report.terminal import strength_table
from undertow.study.carriers import HELD_BACK_FROM, CarrierData
from undertow.study.files import write_json, write_text
from undertow.study.layout import Layout, Study
from undertow.study.presets import Preset, presets
from undertow.study.sources import say
from undertow.texts.yaml import read_yaml, write_yaml
from undertow.vetting.model import check_model

Shapes = Literal["tiny", "exact"]

# Hub repositories whose shape is known, and how their tokenizers frame a chat.
KNOWN = {
    "meta-llama/Llama-2-7b-chat-hf": ("llama2-7b", LLAMA2),
    "Qwen/Qwen2.5-7B-Instruct": ("qwen25-7b", QWEN),
}
# A plan wants rates; what a study costs does not depend on them.
WISHES = Wishes(teacher=0.6, tau=0.3, base=0.03, control=0.03)


def rehearse(
    root: Path, preset: str, shapes: Shapes, arms: int | None, plain: bool, device: str, to: Path
) -> Rehearsal:
    """Go through all steps, whatever goes wrong in one, and write to `to` what came of it.

    arms: of each model at most, with one seed; None: the preset's grid. plain: without students
    of other recipes. `to` gets, after every step what there is up to then, rehearsal.txt,
    rehearsal.json, table.txt and the published study. Checkpoints and results lie in a temporary
    folder (TMPDIR) until the end. Raises ConfigError for a preset that is unknown, or whose models
    are of no known shape, and for exact shapes on a CPU.
    """
    known = {each.name: each for each in presets(root)}
    if preset not in known:
        raise ConfigError(f"no preset {preset!r}", f"use one of: {', '.join(known)}")
    repos = _repos(load(known[preset].path))
    where = pick_device(device)
    if shapes == "exact" and where.type != "cuda":
        raise ConfigError("--shapes exact needs a GPU of 80 GB", "here: --shapes tiny")
    with TemporaryDirectory(prefix="undertow-") as name:
        folder = Path(name)
        (folder / "local").mkdir()
        own = [repo.split("/")[-1] for repo in repos.values()]
        with beside_local(folder / "local", own):
            asked = Asked(shapes == "tiny", arms, plain, where)
            run = _Run(root, folder, known[preset], asked, to)
            run.all_steps(repos)
            return run.written()


def _repos(params: Params) -> dict[str, str]:
    """The hub repository of each model of a preset; ConfigError where a shape is not known."""
    found = {
        name: spec.weights.repo
        for name, spec in params.models.items()
        if isinstance(spec.weights, HubWeights) and spec.weights.repo in KNOWN
    }
    strange = [name for name in params.models if name not in found]
    if strange:
        raise ConfigError(
            f"no shape is known of {', '.join(strange)}, so there is nothing to rehearse with",
            f"rehearse a preset of {' and '.join(KNOWN)}; the others' weights are open: run them",
        )
    return found


def _size(folder: Path) -> int:
    """Bytes of the files below a folder, not of what is linked into it."""
    found = (Path(at, name) for at, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in found)


class _Run:
    """The steps of one rehearsal, in a folder of its own."""

    def __init__(self, root: Path, folder: Path, preset: Preset, asked: Asked, to: Path) -> None:
        self._root, self._folder, self._preset, self._asked = root, folder, preset, asked
        self._to, self._started = to, time.perf_counter()
        self._layout = Layout(folder)
        for shared in ("data", "dvc.yaml", "src"):
            (folder / shared).symlink_to((root / shared).resolve())
        settings = read_yaml(preset.path.read_text(encoding="utf-8"))
        self._changed = stand_in(settings, asked, self._layout)
        write_text(self._layout.params, write_yaml(settings))
        self._study = Study.open(folder)
        self._steps: list[StepRecord] = []

    def all_steps(self, repos: dict[str, str]) -> None:
        """In the order of the checklist, docs/paper.md."""
        self._step("doctor", self._doctor)
        self._step("plan", self._plan)
        for model, repo in repos.items():
            if not self._step(f"weights of {model}", partial(self._weights, repo)):
                return  # or the stages would fetch the real ones
            self._step(f"model check {model}", partial(self._check, model))
        self._step("run-cells", self._cells)
        self._step("run-cells again", self._again)
        for model in self._study.params.grid.models:
            self._step(f"audit {model}", partial(self._audit, model))
        self._step("results", self._results)
        self._step("report", self._report)
        self._step("publish", self._publish)

    def _step(self, name: str, work: Callable[[], str]) -> bool:
        say(f"rehearse: {name}")
        started, said, problem = time.perf_counter(), "", None
        try:
            said = work()
        except UndertowError as error:
            problem = str(error)
        except Exception as error:  # the other steps are worth knowing about
            traceback.print_exception(error, file=sys.stderr)
            problem = f"{type(error).__name__}: {error} (the traceback is on stderr)"
        seconds = round(time.perf_counter() - started, 1)
        self._steps.append(StepRecord(name=name, seconds=seconds, said=said, problem=problem))
        self.written()  # what there is, should the next step not end
        return problem is None

    def _doctor(self) -> str:
        """Of the checkout and the preset as it is shipped: what it finds is no failed step."""
        found = checks(self._root, load(self._preset.path))
        return "\n".join(
            f"{check.state} {check.name}: {check.found}" for check in found if check.state != "ok"
        )

    def _plan(self) -> str:
        """Of the preset as it is shipped."""
        whole = Study(load(self._preset.path), self._layout)
        return describe_cost(make_plan(whole, WISHES).cost)

    def _weights(self, repo: str) -> str:
        shape, manner = KNOWN[repo]
        made = self._layout.root / "local" / repo.split("/")[-1]
        which = small(SHAPES[shape]) if self._asked.small else SHAPES[shape]
        benign = CarrierData(self._layout, HELD_BACK_FROM).file
        blocks = write_checkpoint(made, which, benign, self._asked.device, manner)
        size = sum(path.stat().st_size for path in made.iterdir())
        return f"{blocks} blocks of {which.hidden_size}, {size / GIB:.2f} GiB"

    def _check(self, model: str) -> str:
        found = check_model(self._study, model)
        return f"prompt {found.prompt!r}; answers {found.engine}"

    def _cells(self) -> str:
        ran, failed = [], list[str]()
        for base, outcome in run_all(self._study, commit=False):
            ran.append(f"{base}: {len(outcome.ran)} stages run")
            failed += [f"{subject}: {text}" for subject, text in outcome.failed.items()]
        if failed:
            raise UndertowError("; ".join([*ran, *failed]), "rehearse again when that is solved")
        return "\n".join(ran)

    def _again(self) -> str:
        """What a killed run does when it is given again: nothing that has been done."""
        outcomes = [outcome for _, outcome in run_all(self._study, commit=False)]
        ran = [name for outcome in outcomes for name in outcome.ran]
        if ran:
            raise UndertowError(f"ran again: {', '.join(ran)}", "they had been run")
        return "nothing was left to run"

    def _audit(self, model: str) -> str:
        found = audit.run(self._study, model)
        return f"{len(found.arms)} arms"

    def _results(self) -> str:
        write_text(self._to / "table.txt", strength_table(conclude(self._study).summary))
        return "table.txt has the shape of the first table"

    def _report(self) -> str:
        from undertow.pipeline import report  # it draws, and may miss what that needs

        report.run(self._study)
        return f"{self._layout.report.stat().st_size / 2**20:.1f} MiB, one page"

    def _publish(self) -> str:
        from undertow.report.publish import publish

        publish(self._study, self._to / "published")
        return "published/"

    def _stages(self) -> Iterator[StageRecord]:
        """Costs by model and stage, of what has been run."""
        params, nodes = self._study.params, dict[tuple[str, str], list[Node]]()
        for model in params.grid.models:
            for stage in ("fetch", "direction"):
                nodes[model, stage] = [model_node(self._study, stage, model)]
        for cell in params.all_cells():
            for stage in self._study.stages_of(cell)[0 if cell == cell.plain else 1 :]:
                title = _title(cell, stage)
                node = cell_node(self._study, stage, cell)
                nodes.setdefault((params.student_base(cell), title), []).append(node)
        for (model, title), each in nodes.items():
            costs = [m.costs for node in each if (m := recorded(self._folder, node))]
            if costs:
                yield StageRecord(
                    model=model,
                    stage=title,
                    runs=len(costs),
                    seconds=round(sum(cost.seconds for cost in costs), 1),
                    load_seconds=round(sum(cost.load_seconds for cost in costs), 1),
                    peak_memory_bytes=max(cost.peak_memory_bytes for cost in costs),
                    generated_per_second=costs[-1].generated_per_second,
                    trained_per_second=costs[-1].trained_per_second,
                )

    def written(self) -> Rehearsal:
        """What came of it up to now, as it is written."""
        device, stages = self._asked.device, tuple(self._stages())
        on_gpu = device.type == "cuda"
        found = Rehearsal(
            preset=self._preset.name,
            shapes="tiny" if self._asked.small else "exact",
            device=torch.cuda.get_device_name(device) if on_gpu else "a CPU",
            versions={each: metadata.version(each) for each in ("torch", "transformers")},
            changed=tuple(self._changed),
            steps=tuple(self._steps),
            stages=stages,
            seconds=round(time.perf_counter() - self._started, 1),
            peak_device_bytes=max((each.peak_memory_bytes for each in stages), default=0)
            if on_gpu
            else None,
            peak_process_bytes=peak_memory("cpu"),
            disk_bytes=_size(self._folder),
        )
        write_json(self._to / "rehearsal.json", found)
        write_text(self._to / "rehearsal.txt", lines(found))
        return found


def _title(cell: Cell, stage: str) -> str:
    return stage if cell == cell.plain else f"{stage} {cell.student}"
