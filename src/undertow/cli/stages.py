"""The stages of dvc.yaml as commands of the same names."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from undertow.cli.options import ArmName, Json, Model, Seed, open_study, show

PANEL = "Stages (the same words as in dvc.yaml)"

app = typer.Typer()
judge_app = typer.Typer(
    help="Give a verdict on every answer of teacher and student.", invoke_without_command=True
)
app.add_typer(judge_app, name="judge", rich_help_panel=PANEL)
Answers = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Answers of another engine, JSON lines (docs/serving.md)."),
]
Student = Annotated[str, typer.Option(help="A key of recipes: how the student is made.")]


@app.command(rich_help_panel=PANEL)
def fetch(model: Model) -> None:
    """Get and check a model's weights and the trait's external files."""
    from undertow.pipeline import fetch as stage
    from undertow.pipeline.spoken import stage as spoken

    study = open_study()
    rows, folder = "weights, and the trait's external files", study.layout.fetched(model)
    with spoken(study, f"fetch {model}", rows, folder):
        stage.run(study, model)


@app.command(rich_help_panel=PANEL)
def direction(model: Model) -> None:
    """Extract the trait's direction and choose the steered blocks."""
    from undertow.pipeline import direction as stage
    from undertow.pipeline.spoken import device_of
    from undertow.pipeline.spoken import stage as spoken

    study = open_study()
    count = study.params.direction.contrast_prompts
    rows = f"{count} contrast prompts of each side, on {device_of(study)}"
    with spoken(study, f"direction {model}", rows, study.layout.direction(model)):
        stage.run(study, model)


@app.command(rich_help_panel=PANEL)
def steer(
    model: Model,
    arm: ArmName,
    seed: Seed = 0,
    answers: Answers = None,
    of: Annotated[
        Literal["teacher", "carrier"] | None,
        typer.Option(help="With --answers: the file holds the carrier alone; the rest is asked."),
    ] = None,
    without_model: Annotated[
        bool,
        typer.Option("--without-model", help="With --answers: read no margins, load no model."),
    ] = False,
) -> None:
    """Let the steered teacher answer the benign prompts, and read it on the trait."""
    from undertow.pipeline import steer as stage
    from undertow.pipeline.given import hand_over
    from undertow.pipeline.spoken import cell_stage

    study = open_study()
    cell = study.params.cell(model, arm, seed)
    if answers is not None:
        stage.take(study, cell, answers, of, without_model=without_model)
    elif of or without_model:
        raise typer.BadParameter("--of and --without-model need --answers FILE")
    with cell_stage(study, "steer", cell):
        stage.run(study, cell)
    if answers is not None:
        hand_over(study, cell, "steer")


@app.command("pass-on", rich_help_panel=PANEL)
def pass_on(
    model: Model,
    arm: ArmName,
    student: Annotated[str, typer.Option(help="A student of grid.rounds, who learns from it.")],
    seed: Seed = 0,
) -> None:
    """Let a student, unsteered, write the carrier of the next round."""
    from undertow.pipeline import pass_on as stage
    from undertow.pipeline.spoken import cell_stage

    study = open_study()
    cell = study.params.cell(model, arm, seed, student)
    with cell_stage(study, "pass-on", cell):
        stage.run(study, cell)


@app.command(rich_help_panel=PANEL)
def distill(
    model: Model,
    arm: ArmName,
    seed: Seed = 0,
    student: Student = "plain",
    training_only: Annotated[
        bool,
        typer.Option("--training-only", help="Train, and say where the adapter is; ask nothing."),
    ] = False,
    answers: Answers = None,
) -> None:
    """Train the student on the teacher's answers, and read it on the trait."""
    from undertow.pipeline import distill as stage
    from undertow.pipeline.given import hand_over
    from undertow.pipeline.spoken import cell_stage

    study = open_study()
    cell = study.params.cell(model, arm, seed, student)
    if training_only:
        stage.run(study, cell, training_only=True)
        return
    if answers is not None:
        stage.take(study, cell, answers)
    with cell_stage(study, "distill", cell):
        stage.run(study, cell)
    if answers is not None:
        hand_over(study, cell, "distill")


@judge_app.callback()
def judge(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="A key of models in params.yaml.")] = None,
    arm: Annotated[
        str | None, typer.Option(help="<direction>_<strength>, for example trait_-0.15.")
    ] = None,
    seed: Seed = 0,
    student: Student = "plain",
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Print rows, tokens and USD; judge nothing.")
    ] = False,
) -> None:
    """Give a verdict on every answer of teacher and student."""
    if context.invoked_subcommand:
        return

    study = open_study()
    if model is not None and arm is not None:
        cells = [study.params.cell(model, arm, seed, student)]
    elif estimate:
        cells = study.params.all_cells()
    else:
        raise typer.BadParameter("give --model and --arm, or --estimate for the whole grid")
    if estimate:
        from undertow.judging.costing import estimate as estimate_cost

        print(estimate_cost(study, cells).describe())
        return
    from undertow.pipeline import judge as stage
    from undertow.pipeline.spoken import cell_stage

    with cell_stage(study, "judge", cells[0]):
        stage.run(study, cells[0])


@judge_app.command("calibrate")
def judge_calibrate(
    labelled: Annotated[str, typer.Option("--set", help="pyrit-refusal or jbb-judge-comparison.")],
    half: Annotated[
        Literal["all", "develop", "test"], typer.Option(help="Which fixed half of the set.")
    ] = "all",
) -> None:
    """Measure the judge of params.yaml against human labels."""
    from undertow.judging import make_judge
    from undertow.judging.calibration import calibrate, describe, write_calibration
    from undertow.judging.labelled import labelled_set
    from undertow.study.traits import TraitData

    params, layout = open_study()
    trait = TraitData(layout, labelled_set(labelled).trait).trait
    chosen = make_judge(params.judging.judge, trait, layout.root)
    found = calibrate(chosen, labelled, half, params.statistics.confidence)
    print(describe(found))
    write_calibration(layout, chosen, found)


@app.command(rich_help_panel=PANEL)
def audit(model: Model, as_json: Json = False) -> None:
    """Look for the trait in what a model's students are trained on, without loading the model."""
    from undertow.pipeline import audit as stage
    from undertow.pipeline.spoken import stage as spoken
    from undertow.report.terminal import audit_table

    study = open_study()
    carriers = sum(cell.model == model for cell in study.params.cells())
    rows = f"{carriers} carrier(s) of up to {study.params.carrier.prompts} rows, no model"
    with spoken(study, f"audit {model}", rows, study.layout.audit(model)):
        found = stage.run(study, model)
    show(found, audit_table, as_json)


@app.command(rich_help_panel=PANEL)
def report(
    reveal: Annotated[
        bool, typer.Option(help="Show the responses of a harmful trait in report.html.")
    ] = False,
) -> None:
    """Compute tau over the whole grid; write metrics, plots, report.html and MLflow runs."""
    from undertow.pipeline import report as stage
    from undertow.pipeline.spoken import stage as spoken

    study = open_study()
    rows = f"{len(study.params.cells())} cell(s), {study.params.statistics.resamples:,} resamples"
    with spoken(study, "report", rows, study.layout.report):
        stage.run(study, reveal)
    print("python cli.py results prints the table", file=sys.stderr)


@app.command(
    hidden=True, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
def cross() -> None:
    """Students of another base, before recipes."""
    raise typer.BadParameter(
        "a student of another base is a recipe now: give one under recipes in params.yaml a base, "
        "then: python cli.py distill --model TEACHER --arm ARM --seed SEED --student RECIPE"
    )
