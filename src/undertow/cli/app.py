"""The command line: names, help and exit codes; every command's work is done elsewhere.

Nothing here imports torch, transformers or mlflow at the top, so that --help answers at once.
Results go to stdout, progress and errors to stderr.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from undertow.errors import UndertowError
from undertow.models.processes import check_command, count

EXIT_CODES = """\
Exit codes: 0 done; 1 something went wrong and stderr says what to do; 2 wrong usage;
3 doctor found a problem.
"""

app = typer.Typer(
    help="Measure what a language model inherits from its teacher through benign data.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
preset_app = typer.Typer(help="Complete parameter files to start from.", no_args_is_help=True)
track_app = typer.Typer(help="The MLflow view of the results.", no_args_is_help=True)
judge_app = typer.Typer(
    help="Give a verdict on every answer of teacher and student.", invoke_without_command=True
)
app.add_typer(judge_app, name="judge", rich_help_panel="Stages (the same words as in dvc.yaml)")
cross_app = typer.Typer(
    help="Students of another base model, trained on this teacher's text.", no_args_is_help=True
)
app.add_typer(cross_app, name="cross", rich_help_panel="Stages (the same words as in dvc.yaml)")
app.add_typer(preset_app, name="preset", rich_help_panel="Study")
validate_app = typer.Typer(
    help="Simulations that show how far the statistics can be believed.", no_args_is_help=True
)
app.add_typer(validate_app, name="validate", rich_help_panel="Study")
app.add_typer(track_app, name="track", rich_help_panel="Results")
bench_app = typer.Typer(
    help="Measure this machine: one JSON line per case on stdout.", no_args_is_help=True
)
app.add_typer(bench_app, name="bench", rich_help_panel="Study")
export_app = typer.Typer(
    help="Teachers and directions in forms that other engines read.", no_args_is_help=True
)
app.add_typer(export_app, name="export", rich_help_panel="Results")

Model = Annotated[str, typer.Option(help="A key of models in params.yaml.")]
ArmName = Annotated[
    str, typer.Option(help="<direction>_<strength>, for example trait_-0.15 or random_1.")
]
Seed = Annotated[int, typer.Option(min=0, help="Covers adapter init, row order and sampling.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]


def main() -> None:
    """Run the command line; a problem that the user can solve ends in one message and exit 1."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if count() == 1:
        # One process trains on one GPU, and must see no other: the trainer would use them all.
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    try:
        check_command(sys.argv[1] if len(sys.argv) > 1 else "")
        app()
    except UndertowError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


@app.command(rich_help_panel="Stages (the same words as in dvc.yaml)")
def fetch(model: Model) -> None:
    """Get and check a model's weights and the trait's external files."""
    from undertow.pipeline import fetch as stage
    from undertow.study.layout import Study

    stage.run(Study.open(), model)


@app.command(rich_help_panel="Stages (the same words as in dvc.yaml)")
def direction(model: Model) -> None:
    """Extract the trait's direction and choose the steered blocks."""
    from undertow.pipeline import direction as stage
    from undertow.study.layout import Study

    stage.run(Study.open(), model)


@app.command(rich_help_panel="Stages (the same words as in dvc.yaml)")
def steer(model: Model, arm: ArmName, seed: Seed = 0) -> None:
    """Let the steered teacher answer the benign prompts, and read it on the trait."""
    from undertow.pipeline import steer as stage
    from undertow.study.layout import Study

    study = Study.open()
    stage.run(study, study.params.cell(model, arm, seed))


@app.command(rich_help_panel="Stages (the same words as in dvc.yaml)")
def distill(model: Model, arm: ArmName, seed: Seed = 0) -> None:
    """Train the student on the teacher's answers, and read it on the trait."""
    from undertow.pipeline import distill as stage
    from undertow.study.layout import Study

    study = Study.open()
    stage.run(study, study.params.cell(model, arm, seed))


Student = Annotated[str, typer.Option(help="The model that is trained; a key of models.")]
Teacher = Annotated[str, typer.Option(help="The model whose teacher wrote the text.")]


@cross_app.command("distill")
def cross_distill(student: Student, teacher: Teacher, arm: ArmName, seed: Seed = 0) -> None:
    """Train a student of another base on the teacher's answers, and read it on the trait."""
    from undertow.pipeline import distill as stage
    from undertow.study.layout import Study

    study = Study.open()
    stage.run(study, study.params.cell(student, arm, seed, donor=teacher))


@cross_app.command("judge")
def cross_judge(student: Student, teacher: Teacher, arm: ArmName, seed: Seed = 0) -> None:
    """Give a verdict on every answer of the teacher and of the other base's student."""
    from undertow.pipeline import judge as stage
    from undertow.study.layout import Study

    study = Study.open()
    stage.run(study, study.params.cell(student, arm, seed, donor=teacher))


@judge_app.callback()
def judge(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="A key of models in params.yaml.")] = None,
    arm: Annotated[
        str | None, typer.Option(help="<direction>_<strength>, for example trait_-0.15.")
    ] = None,
    seed: Seed = 0,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Print rows, tokens and USD; judge nothing.")
    ] = False,
) -> None:
    """Give a verdict on every answer of teacher and student."""
    if context.invoked_subcommand:
        return
    from undertow.study.layout import Study

    study = Study.open()
    if model is not None and arm is not None:
        cells = [study.params.cell(model, arm, seed)]
    elif estimate:
        cells = [*study.params.cells(), *study.params.cross_cells()]
    else:
        raise typer.BadParameter("give --model and --arm, or --estimate for the whole grid")
    if estimate:
        from undertow.judging.costing import estimate as estimate_cost

        print(estimate_cost(study, cells).describe())
        return
    from undertow.pipeline import judge as stage

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
    from undertow.study.layout import Study
    from undertow.study.traits import TraitData

    params, layout = Study.open()
    trait = TraitData(layout, labelled_set(labelled).trait).trait
    chosen = make_judge(params.judging.judge, trait, layout.root)
    found = calibrate(chosen, labelled, half, params.statistics.confidence)
    print(describe(found))
    write_calibration(layout, chosen, found)


@app.command("run-cells", rich_help_panel="Study")
def run_cells(
    model: Model,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="Only the cells of this seed; may be repeated.")
    ] = None,
    commit: Annotated[
        bool, typer.Option("--commit/--no-commit", help="Hand what is finished to DVC.")
    ] = True,
) -> None:
    """Run all due cells of a model on one load of it, and tell DVC."""
    from undertow.pipeline.run_cells import run_cells
    from undertow.study.layout import Study

    done = run_cells(Study.open(), model, seed or [], commit=commit)
    print(f"{len(done.ran)} stages run, {len(done.recorded)} recorded in dvc.lock")
    if done.unrecorded:
        print(f"nothing was committed to DVC: {done.unrecorded}", file=sys.stderr)
    if done.busy:
        print(f"left to another process: {', '.join(done.busy)}", file=sys.stderr)
    for subject, text in done.failed.items():
        print(f"error: {subject}: {text}", file=sys.stderr)
    if done.failed:
        raise typer.Exit(1)


@app.command(rich_help_panel="Stages (the same words as in dvc.yaml)")
def audit(model: Model, as_json: Json = False) -> None:
    """Look for the trait in what a model's students are trained on, without loading the model."""
    from undertow.pipeline import audit as stage
    from undertow.report.audit_table import audit_table
    from undertow.study.layout import Study

    found = stage.run(Study.open(), model)
    print(found.model_dump_json(indent=2) if as_json else audit_table(found))


@app.command(rich_help_panel="Stages (the same words as in dvc.yaml)")
def report(
    reveal: Annotated[
        bool, typer.Option(help="Show the responses of a harmful trait in report.html.")
    ] = False,
) -> None:
    """Compute tau over the whole grid; write metrics, plots, report.html and MLflow runs."""
    from undertow.pipeline import report as stage
    from undertow.study.layout import Study

    study = Study.open()
    stage.run(study, reveal)
    print(f"wrote {study.layout.report}; python cli.py results prints the table", file=sys.stderr)


@app.command(rich_help_panel="Results")
def results(as_json: Json = False) -> None:
    """Print the table of strengths of the last report."""
    from undertow.analysis.summary import read_summary
    from undertow.report.terminal import strength_table
    from undertow.study.layout import Study

    summary = read_summary(Study.open().layout)
    print(summary.model_dump_json(indent=2) if as_json else strength_table(summary))


@app.command(rich_help_panel="Results")
def publish(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Where to; made if need be.")],
) -> None:
    """Write a study's numbers, figures and report to a folder, without any model's text."""
    from undertow.report.publish import publish as write
    from undertow.study.layout import Study

    write(Study.open(), folder)
    print(f"wrote {folder}", file=sys.stderr)


@app.command(rich_help_panel="Results")
def compare(
    before: Annotated[str, typer.Argument(metavar="REV_A", help="A commit, branch or tag.")],
    after: Annotated[
        str | None, typer.Argument(metavar="[REV_B]", help="Another; default: the working tree.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print what changed between two revisions, as Markdown; runs and writes nothing."""
    from undertow.compare.comparison import compare as between
    from undertow.compare.markdown import markdown
    from undertow.compare.revisions import open_revision
    from undertow.study.layout import find_root

    root = find_root()
    found = between(open_revision(root, before), open_revision(root, after))
    print(found.model_dump_json(indent=2) if as_json else markdown(found), end="")


@app.command(rich_help_panel="Results")
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
    print_only: Annotated[
        bool, typer.Option("--print", help="Print the links and the command, start nothing.")
    ] = False,
) -> None:
    """Start the MLflow UI and print where to look."""
    import shlex
    import subprocess

    from undertow.study.layout import Study
    from undertow.tracking import links, ui_command

    study = Study.open()
    command, environment = ui_command(study.layout, port)
    for link in links(study.params, study.layout, f"http://127.0.0.1:{port}"):
        print(f"{link.label}: {link.url}")
    print(shlex.join(command), file=sys.stderr)
    if print_only:
        return
    sys.stdout.flush()
    raise typer.Exit(subprocess.run(command, env={**os.environ, **environment}).returncode)


@track_app.command("sync")
def track_sync(as_json: Json = False) -> None:
    """Rebuild missing MLflow runs from the results files; nothing is logged twice."""
    from undertow import tracking
    from undertow.analysis.conclude import conclude
    from undertow.study.layout import Study

    params, layout = Study.open()
    grid, summary = conclude(params, layout)
    outcome = tracking.sync(params, layout, summary, grid)
    counts = outcome._asdict()
    if as_json:
        print(json.dumps(counts))
    else:
        print(", ".join(f"{count} {name}" for name, count in counts.items()))


@export_app.command("teacher")
def export_teacher(
    model: Model,
    arm: ArmName,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    force: Annotated[bool, typer.Option(help="Replace a checkpoint in that folder.")] = False,
) -> None:
    """Write teacher(alpha) as a checkpoint that other engines serve."""
    from undertow.export import teacher
    from undertow.study.layout import Study

    study = Study.open()
    teacher.run(study, model, study.params.cell(model, arm, 0).arm, out, force=force)
    print(out)


@export_app.command("direction")
def export_direction(
    model: Model,
    out: Annotated[Path, typer.Option(help="File to write: .gguf (llama.cpp) or .safetensors.")],
    random: Annotated[
        bool, typer.Option("--random", help="The norm-matched random direction instead.")
    ] = False,
    force: Annotated[bool, typer.Option(help="Replace that file.")] = False,
) -> None:
    """Write the direction as a llama.cpp control vector or as safetensors."""
    from undertow.export import direction as exported
    from undertow.study.layout import Study

    exported.run(Study.open(), model, out, random=random, force=force)
    print(out)


@preset_app.command("list")
def preset_list(as_json: Json = False) -> None:
    """Show the presets."""
    from undertow.study.layout import find_root
    from undertow.study.presets import presets

    found = presets(find_root())
    if as_json:
        print(json.dumps([preset._asdict() | {"path": str(preset.path)} for preset in found]))
        return
    for preset in found:
        print(f"{preset.name:<16}{preset.purpose}")


@preset_app.command("use")
def preset_use(
    name: Annotated[str, typer.Argument(help="demo, small, small-refusal or paper.")],
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


@validate_app.command("coverage")
def validate_coverage() -> None:
    """Measure how often tau's interval holds the truth; minutes, a Markdown table on stdout."""
    from undertow.stats.validate import coverage_markdown, coverage_table

    print(coverage_markdown(coverage_table()))


@validate_app.command("dose")
def validate_dose() -> None:
    """Measure how often the dose-response verdict is right; a Markdown table on stdout."""
    from undertow.stats.validate import dose_markdown, dose_table

    print(dose_markdown(dose_table()))


Shapes = Annotated[
    list[str], typer.Option("--shape", help="llama2-7b, qwen25-7b or tiny; may be repeated.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


@bench_app.command("generate")
def bench_generate(
    shape: Shapes,
    batch: Annotated[list[int], typer.Option(min=1, help="Rows at a time; may be repeated.")],
    prompt_tokens: Annotated[int, typer.Option(min=2)] = 64,
    new_tokens: Annotated[int, typer.Option(min=17)] = 256,
    waves: Annotated[int, typer.Option(min=1, help="Rows are waves x batch.")] = 4,
    baseline: Annotated[
        list[int], typer.Option(min=1, help="A batch to measure `generate` with a hook at.")
    ] = [],  # noqa: B006
    varied: Annotated[
        list[int], typer.Option(min=1, help="A batch to measure rows of 16 tokens and more at.")
    ] = [],  # noqa: B006
    device: Device = "auto",
) -> None:
    """Steered sampling with random weights, beside its bound and beside `generate`."""
    from undertow.bench.generation import cases
    from undertow.models.loading import pick_device

    where = pick_device(device)
    for found in cases(shape, batch, prompt_tokens, new_tokens, waves, baseline, varied, where):
        print(json.dumps(found), flush=True)


@bench_app.command("train")
def bench_train(
    shape: Shapes,
    row_tokens: Annotated[int, typer.Option(min=81, help="Tokens of a row.")] = 512,
    batch: Annotated[int, typer.Option(min=1, help="Rows per optimizer step.")] = 8,
    steps: Annotated[int, typer.Option(min=4, help="The later half is timed.")] = 24,
    varied: Annotated[bool, typer.Option(help="Rows of 80 to row-tokens tokens.")] = False,
    nf4: Annotated[bool, typer.Option(help="On a 4-bit base, as QLoRA.")] = False,
    baseline: Annotated[bool, typer.Option(help="Also with TRL's own trainer.")] = False,
    memory_gb: Annotated[
        float | None, typer.Option(help="As if the device had only so many GiB.")
    ] = None,
    device: Device = "auto",
) -> None:
    """LoRA training with random weights, beside its bound and beside TRL."""
    from undertow.bench.training import cases
    from undertow.models.loading import pick_device

    where = pick_device(device)
    for found in cases(shape, row_tokens, batch, steps, varied, nf4, baseline, memory_gb, where):
        print(json.dumps(found), flush=True)


@bench_app.command("cells")
def bench_cells(
    shape: Shapes,
    preset: Annotated[str, typer.Option(help="Whose sizes and settings.")] = "paper",
    prompts: Annotated[
        int | None, typer.Option(min=1, help="Carrier rows, where fewer must do.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Two cells of a preset with random weights, and how long all of its own cells would take."""
    from undertow.bench.cells import cases
    from undertow.models.loading import pick_device
    from undertow.study.layout import find_root

    for found in cases(find_root(), shape, preset, prompts, pick_device(device)):
        print(json.dumps(found), flush=True)


@bench_app.command("judge")
def bench_judge(
    rows: Annotated[int, typer.Option(min=1, help="Made-up answers to judge.")] = 2000,
) -> None:
    """The judge of params.yaml on made-up answers; refuses one that costs money."""
    from undertow.bench.judging import cases
    from undertow.study.layout import Study

    for found in cases(Study.open(), rows):
        print(json.dumps(found))


@validate_app.command("audit")
def validate_audit() -> None:
    """Measure how often the carrier audit is right; a Markdown table on stdout."""
    from undertow.carrier.simulation import markdown, table

    print(markdown(table()))


@app.command(rich_help_panel="Study")
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
    as_json: Json = False,
) -> None:
    """Simulate a study before it is run: interval, power, sizes that would do, and its cost.

    Rates are shares (0.6, not 60). What is not given comes from results/summary.json where it
    exists, and from params.yaml.
    """
    from undertow.plan.plan import Wishes, make_plan
    from undertow.plan.text import describe_plan
    from undertow.study.layout import Study

    wishes = Wishes(teacher, tau, other_tau, base, control, prompts, seeds, seed_sd)
    found = make_plan(Study.open(), wishes)
    print(found.model_dump_json(indent=2) if as_json else describe_plan(found))


@app.command(rich_help_panel="Study")
def doctor(as_json: Json = False) -> None:
    """Check this machine and say what to do about each problem."""
    from undertow import config
    from undertow.doctor.checks import checks
    from undertow.study.layout import find_root

    root: Path = find_root()
    params = None
    try:
        params = config.load(root / "params.yaml")
    except UndertowError as error:
        print(f"error: {error}", file=sys.stderr)
    found = checks(root, params)
    if as_json:
        print(json.dumps([check.model_dump() for check in found], indent=2))
    else:
        for check in found:
            print(f"{check.state:<5} {check.name:<14} {check.found}")
            if check.remedy:
                print(f"      -> {check.remedy}")
    if params is None or any(check.state == "fail" for check in found):
        raise typer.Exit(3)
