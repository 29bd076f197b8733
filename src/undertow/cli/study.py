"""A study before and while it runs: presets, plan, doctor, many cells at once, simulations."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from undertow.cli.options import MOST_SEED, Json, Model, open_study, show
from undertow.errors import ConfigError, UndertowError

PANEL = "Study"

app = typer.Typer()
preset_app = typer.Typer(help="Complete parameter files to start from.", no_args_is_help=True)
app.add_typer(preset_app, name="preset", rich_help_panel=PANEL)
model_app = typer.Typer(help="What a study does with a model.", no_args_is_help=True)
app.add_typer(model_app, name="model", rich_help_panel=PANEL)
validate_app = typer.Typer(
    help="Simulations that show how far the statistics can be believed.", no_args_is_help=True
)
app.add_typer(validate_app, name="validate", rich_help_panel=PANEL)


@model_app.command("check")
def model_check(model: Model, as_json: Json = False) -> None:
    """Say how a model is prompted, steered and trained, or why it cannot be; needs no weights."""
    from undertow.vetting.model import ModelCheck, check_model

    show(check_model(open_study(), model), ModelCheck.lines, as_json)


@app.command("run-cells", rich_help_panel=PANEL)
def run_cells(
    model: Annotated[
        list[str] | None,
        typer.Option(help="A key of models in params.yaml; may be repeated; default: every base."),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(min=0, max=MOST_SEED, help="Only the cells of this seed; may be repeated."),
    ] = None,
    commit: Annotated[
        bool, typer.Option("--commit/--no-commit", help="Hand what is finished to DVC.")
    ] = True,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Share the seeds out among so many processes of this machine."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Run on a Ray cluster: its address, auto, or local for here."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="With --ray: CPUs of a worker.")
    ] = None,
    actors: Annotated[
        int | None, typer.Option(min=1, help="With --ray: workers at most; all that fit if unset.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --ray: events as JSON lines on stdout.")
    ] = False,
) -> None:
    """Run all due cells of a model, or of every model, on one load of each, and tell DVC."""
    from undertow.study.sources import say

    study, wanted = open_study(), seed or []
    say(f"run-cells: looking at what is due of {', '.join(model or ['the grid'])}")
    if ray is not None and processes is not None:
        raise ConfigError(
            "--processes and --ray are two ways to share a grid out", "give one of them"
        )
    if ray is not None:
        from undertow.cluster.driver import run_cells_on_ray

        done = run_cells_on_ray(
            study,
            model,
            wanted,
            address=ray,
            threads=threads,
            actors=actors,
            commit=commit,
            events=as_json,
        )
        runs = iter([("", done)])
    elif threads or actors or as_json:
        raise ConfigError("--threads, --actors and --json need --ray", "add --ray local")
    else:
        from undertow.pipeline.processes import run_processes
        from undertow.pipeline.run_cells import run_all

        if processes is not None:
            run_processes(study, model, wanted, processes)
        runs = run_all(study, model, wanted, commit=commit)
    failed = False
    for base, done in runs:
        named = f"{base}: " if base and len(model or ()) != 1 else ""
        if not as_json:
            print(f"{named}{len(done.ran)} stages run, {len(done.recorded)} recorded in dvc.lock")
        for line in done.undone():
            print(line, file=sys.stderr)
        failed |= bool(done.failed)
    if failed:
        raise typer.Exit(1)


@app.command(rich_help_panel=PANEL)
def plan(
    teacher: Annotated[float | None, typer.Option(help="Expected rate of the teacher.")] = None,
    tau: Annotated[float | None, typer.Option(help="Expected transfer ratio.")] = None,
    other_tau: Annotated[
        float | None, typer.Option(help="Another model's tau, to be told from it.")
    ] = None,
    base: Annotated[float | None, typer.Option(help="Rate of the base model.")] = None,
    control: Annotated[float | None, typer.Option(help="Rate of the control student.")] = None,
    prompts: Annotated[int | None, typer.Option(min=2, help="Evaluation prompts.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Students per strength.")] = None,
    seed_sd: Annotated[
        float | None, typer.Option(help="Spread of students over seeds; 0: none, 0.3: usual.")
    ] = None,
    half_width: Annotated[
        float | None,
        typer.Option(min=0, help="Wanted interval, +-, of a shift, in the unit of --seed-sd."),
    ] = None,
    students: Annotated[
        int | None, typer.Option(min=2, help="Students of a model to make the best use of.")
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Say how long the grid takes on so many, and no more."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Simulate a study before it is run: interval, power, sizes that would do, and its cost.

    Rates are shares (0.6, not 60). The rest comes from results/summary.json and params.yaml.
    """
    if gpus is not None:
        from undertow.plan.gpus import describe_gpus, gpu_plan

        show(gpu_plan(open_study(), gpus), describe_gpus, as_json)
        return
    from undertow.plan.plan import Wishes, make_plan
    from undertow.plan.text import describe_plan

    wishes = Wishes(
        teacher, tau, other_tau, base, control, prompts, seeds, seed_sd, half_width, students
    )
    found = make_plan(open_study(), wishes)
    show(found, describe_plan, as_json)


@app.command(rich_help_panel=PANEL)
def doctor(as_json: Json = False) -> None:
    """Check this machine and say what to do about each problem."""
    from undertow import config
    from undertow.doctor.checks import checks, checks_text
    from undertow.study.layout import find_root

    root = find_root()
    params = None
    try:
        params = config.load(root / "params.yaml")
    except UndertowError as error:
        print(f"error: {error}", file=sys.stderr)
    found = checks(root, params)
    show(found, checks_text, as_json)
    if params is None or any(check.state == "fail" for check in found):
        raise typer.Exit(3)


@preset_app.command("list")
def preset_list(as_json: Json = False) -> None:
    """Show the presets."""
    from undertow.study.layout import find_root
    from undertow.study.presets import listing, presets

    show(presets(find_root()), listing, as_json)


@preset_app.command("use")
def preset_use(
    name: Annotated[
        str, typer.Argument(help="One that `preset list` shows, as demo or paper-smoke.")
    ],
    force: Annotated[
        bool, typer.Option(help="Replace a params.yaml that has edits of its own.")
    ] = False,
) -> None:
    """Make a preset the params.yaml."""
    from undertow.study.layout import find_root
    from undertow.study.presets import use

    print(f"params.yaml is now the preset {use(find_root(), name, force=force).name}")


@preset_app.command("explain")
def preset_explain() -> None:
    """Describe every key of params.yaml."""
    from undertow.study.presets import explain

    print(explain())


class Simulation(StrEnum):
    """What `validate coverage` simulates."""

    arms = "arms"
    seeds = "seeds"
    models = "models"


@validate_app.command("coverage")
def validate_coverage(
    of: Annotated[
        list[Simulation] | None,
        typer.Option(help="arms, seeds or models; may be repeated. All by default."),
    ] = None,
    students: Annotated[
        Path | None,
        typer.Option(help="Draw studies from these students instead: JSON lines, see the docs."),
    ] = None,
    studies: Annotated[
        int, typer.Option(min=1, help="Simulated studies a row, of seeds, models and students.")
    ] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulation of these.")] = 0,
) -> None:
    """Measure how often intervals hold the truth; minutes, Markdown tables on stdout."""
    from undertow.config import parse_arm
    from undertow.findings.simulations import (
        coverage_markdown,
        family_markdown,
        moderation_markdown,
    )
    from undertow.stats.validate import coverage_table
    from undertow.stats.validate_family import family_table, students_table
    from undertow.stats.validate_moderation import moderation_table
    from undertow.study.students import read_students

    if students is not None:
        # The trait's arms share one direction; a random arm's students have one each.
        trait = {
            parse_arm(name).alpha: arm
            for name, arm in read_students(students).items()
            if parse_arm(name).direction == "trait"
        }
        print(family_markdown(list(students_table(trait, studies=studies, seed=seed))))
        return
    chosen = of or list(Simulation)
    if Simulation.arms in chosen:
        print(coverage_markdown(coverage_table()))
    if Simulation.seeds in chosen:
        print(moderation_markdown(list(moderation_table(studies=studies, seed=seed))))
    if Simulation.models in chosen:
        print(family_markdown(list(family_table(studies=studies, seed=seed))))


@validate_app.command("dose")
def validate_dose() -> None:
    """Measure how often the dose-response verdict is right; a Markdown table on stdout."""
    from undertow.findings.simulations import dose_markdown
    from undertow.stats.validate import dose_table

    print(dose_markdown(dose_table()))


@validate_app.command("audit")
def validate_audit() -> None:
    """Measure how often the carrier audit is right; a Markdown table on stdout."""
    from undertow.carrier.simulation import planted_markdown, table

    print(planted_markdown(table()))
