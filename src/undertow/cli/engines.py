"""Another engine in the place of ours: what it is to be asked, and asking it."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from undertow.cli.options import ArmName, Model, Seed, open_study

PANEL = "Another engine (docs/serving.md)"

app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def questions(
    model: Model,
    arm: ArmName,
    seed: Seed = 0,
    student: Annotated[str, typer.Option(help="With --of student: a key of recipes.")] = "plain",
    of: Annotated[
        Literal["teacher", "carrier", "student"],
        typer.Option(help="All that steer asks, its carrier alone, or all that distill asks."),
    ] = "teacher",
) -> None:
    """Write what a stage would ask as JSON lines on stdout, with the settings it asks for."""
    from undertow.export.questions import lines

    study = open_study()
    for line in lines(study, study.params.cell(model, arm, seed, student), of):
        print(line)


@app.command(rich_help_panel=PANEL)
def ask(
    questions: Annotated[Path, typer.Argument(help="What `questions` has written.")],
    url: Annotated[str, typer.Option(help="A Chat Completions endpoint, up to /v1.")],
    to: Annotated[Path, typer.Option(help="File of answers; what it has is not asked again.")],
    served: Annotated[
        str | None, typer.Option(help="What the endpoint calls the model; its only one if unset.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Its name and version, for the record: 'vllm 0.26.0'.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 16,
) -> None:
    """Put questions to an OpenAI-compatible endpoint; goes on where it was stopped."""
    from undertow.export import asking

    endpoint = asking.Endpoint(url, served, engine)
    count = asking.ask(questions, endpoint, to, concurrency=concurrency)
    print(f"{count} answers in {to}")
