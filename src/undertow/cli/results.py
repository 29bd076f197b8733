"""A study that has run: its table, published folder, comparison, MLflow view and exports."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from undertow.cli.options import ArmName, Json, Model, open_study, show

PANEL = "Results"

app = typer.Typer()
track_app = typer.Typer(help="The MLflow view of the results.", no_args_is_help=True)
app.add_typer(track_app, name="track", rich_help_panel=PANEL)
export_app = typer.Typer(
    help="Teachers and directions in forms that other engines read.", no_args_is_help=True
)
app.add_typer(export_app, name="export", rich_help_panel=PANEL)


Revision = Annotated[
    str | None,
    typer.Argument(
        metavar="[REV]", help="A commit, branch, tag or DVC experiment; default: the working tree."
    ),
]


@app.command(rich_help_panel=PANEL)
def results(
    revision: Revision = None,
    form: Annotated[
        Literal["table", "markdown", "csv", "json"],
        typer.Option("--format", help="For people, or a row per model, arm and readout."),
    ] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="All of summary.json on stdout.")] = False,
) -> None:
    """Print the table of strengths: of the last report, or of a revision; runs nothing."""
    from undertow.analysis.conclude import conclude
    from undertow.analysis.summary import read_summary
    from undertow.compare.checkout import study_at
    from undertow.findings.public_runs import public_lines
    from undertow.report.terminal import strength_table
    from undertow.report.tidy import arm_rows, written
    from undertow.study.layout import find_root
    from undertow.texts.tables import wrapped

    with study_at(find_root(), revision) as study:
        # A commit holds no summary: it is computed anew from the cells.
        summary = read_summary(study.layout) if revision is None else conclude(study).summary
    if form == "table":
        show(summary, strength_table, as_json)
        for line in () if as_json else public_lines(study.params, summary):
            print("\n".join(wrapped(line, hang=2)))
    else:
        print(written(arm_rows(summary), form), end="")


@app.command(rich_help_panel=PANEL)
def publish(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Where to; made if need be.")],
    revision: Revision = None,
) -> None:
    """Write a study's numbers, figures and report to a folder, without any model's text."""
    from undertow.compare.checkout import study_at
    from undertow.report.publish import publish as write
    from undertow.report.publish import refuse_own
    from undertow.study.layout import Layout, find_root

    root = find_root()
    refuse_own(folder, Layout(root))  # a revision is laid out elsewhere, and would not mind
    with study_at(root, revision) as study:
        write(study, folder)
    print(f"wrote {folder}", file=sys.stderr)


@app.command(rich_help_panel=PANEL)
def compare(
    before: Annotated[
        str, typer.Argument(metavar="REV_A", help="A commit, branch, tag or DVC experiment.")
    ],
    after: Annotated[
        str | None, typer.Argument(metavar="[REV_B]", help="Another; default: the working tree.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print what changed between two revisions, as Markdown; runs and writes nothing."""
    from undertow.compare.comparison import compare as between
    from undertow.compare.markdown import comparison_markdown
    from undertow.compare.revisions import open_revision
    from undertow.study.layout import find_root

    root = find_root()
    found = between(open_revision(root, before), open_revision(root, after))
    show(found, comparison_markdown, as_json)


@app.command(rich_help_panel=PANEL)
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
    print_only: Annotated[
        bool, typer.Option("--print", help="Print the links and the command, start nothing.")
    ] = False,
) -> None:
    """Start the MLflow UI and print where to look; a server of MLflow's has its own."""
    import shlex
    import subprocess

    from undertow.study.home import any_home
    from undertow.tracking import links, own_ui, ui_command

    study = open_study()
    if (server := own_ui(study.layout)) is not None:
        for link in links(study, server):
            print(f"{link.label}: {link.url}")
        return
    command, environment = ui_command(study.layout, port)
    for link in links(study, f"http://127.0.0.1:{port}"):
        print(f"{link.label}: {link.url}")
    print(shlex.join(command), file=sys.stderr)
    if print_only:
        return
    sys.stdout.flush()
    with any_home():
        done = subprocess.run(command, env={**os.environ, **environment})
    raise typer.Exit(done.returncode)


@track_app.command("sync")
def track_sync(as_json: Json = False) -> None:
    """Rebuild missing MLflow runs from the results files; nothing is logged twice."""
    from undertow.analysis.conclude import conclude
    from undertow.tracking import SyncReport, sync

    study = open_study()
    grid, summary = conclude(study)
    show(sync(study, summary, grid, patient=True), SyncReport.describe, as_json)


@export_app.command("teacher")
def export_teacher(
    model: Model,
    arm: ArmName,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    force: Annotated[bool, typer.Option(help="Replace a checkpoint in that folder.")] = False,
) -> None:
    """Write teacher(alpha) as a checkpoint that other engines serve."""
    from undertow.export import teacher

    study = open_study()
    teacher.run(study, model, study.params.cell(model, arm, 0).arm, out, force=force)
    print(out)


@export_app.command("direction")
def export_direction(
    model: Model,
    out: Annotated[Path, typer.Option(help="File to write: .gguf (llama.cpp) or .safetensors.")],
    random: Annotated[
        bool, typer.Option("--random", help="The norm-matched random direction of seed 0 instead.")
    ] = False,
    force: Annotated[bool, typer.Option(help="Replace that file.")] = False,
) -> None:
    """Write the direction as a llama.cpp control vector or as safetensors."""
    from undertow.export import direction as exported

    exported.run(open_study(), model, out, random=random, force=force)
    print(out)
