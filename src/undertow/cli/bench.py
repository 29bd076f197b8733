"""How fast this machine is: one JSON line per case on stdout."""

import json
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from undertow.cli.options import open_study

app = typer.Typer()
bench_app = typer.Typer(
    help="Measure this machine: one JSON line per case on stdout.", no_args_is_help=True
)
app.add_typer(bench_app, name="bench", rich_help_panel="Study")


class Against(StrEnum):
    """What generation is measured beside."""

    transformers = "transformers"
    vllm = "vllm"


Shapes = Annotated[
    list[str],
    typer.Option("--shape", help="As llama2-7b, qwen3-4b, gemma2-2b or tiny; may be repeated."),
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
    against: Annotated[
        list[Against],
        typer.Option(help="Also, at every batch: transformers is --baseline; may be repeated."),
    ] = [],  # noqa: B006
    baseline_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="New tokens of `generate`, where fewer must do.")
    ] = None,
    vllm_python: Annotated[
        str | None, typer.Option(help="The Python that has vLLM, where it is not this one.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Steered sampling with random weights, beside its bound, `generate` and vLLM."""
    from undertow.bench.against import find_vllm
    from undertow.bench.generation import cases
    from undertow.models.loading import pick_device

    vllm = find_vllm(vllm_python) if Against.vllm in against else None
    if Against.transformers in against:
        baseline = batch
    _print(
        cases(
            shape,
            batch,
            prompt_tokens,
            new_tokens,
            waves,
            baseline,
            varied,
            pick_device(device),
            baseline_new=baseline_new_tokens,
            vllm=vllm,
        )
    )


@bench_app.command("train")
def bench_train(
    shape: Shapes,
    row_tokens: Annotated[int, typer.Option(min=81, help="Tokens of a row.")] = 512,
    batch: Annotated[int, typer.Option(min=1, help="Rows per optimizer step.")] = 8,
    steps: Annotated[int, typer.Option(min=4, help="The later half is timed.")] = 24,
    varied: Annotated[bool, typer.Option(help="Rows of 80 to row-tokens tokens.")] = False,
    nf4: Annotated[bool, typer.Option(help="On a 4-bit base, as QLoRA.")] = False,
    baseline: Annotated[bool, typer.Option(help="Also with TRL's own trainer.")] = False,
    students: Annotated[
        int | None, typer.Option(min=1, help="Trained together, each on rows of its own.")
    ] = None,
    memory_gb: Annotated[
        float | None, typer.Option(help="As if the device had only so many GiB.")
    ] = None,
    device: Device = "auto",
) -> None:
    """LoRA training with random weights, beside its bound and beside TRL."""
    from undertow.bench.training import cases
    from undertow.models.loading import pick_device

    where = pick_device(device)
    _print(
        cases(shape, row_tokens, batch, steps, varied, nf4, baseline, memory_gb, students, where)
    )


@bench_app.command("cells")
def bench_cells(
    shape: Shapes,
    preset: Annotated[str, typer.Option(help="Whose sizes and settings.")] = "paper",
    prompts: Annotated[
        int | None, typer.Option(min=1, help="Carrier rows, where fewer must do.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Two cells of a preset with random weights, and how long its cells would take; several shapes
    are the models of one grid."""
    from undertow.bench.cells import cases
    from undertow.models.loading import pick_device
    from undertow.study.layout import find_root

    _print(cases(find_root(), shape, preset, prompts, pick_device(device), _print_one))


@bench_app.command("readouts")
def bench_readouts(
    shape: Shapes,
    students: Annotated[int, typer.Option(min=0, help="With random adapters.")] = 8,
    teachers: Annotated[int, typer.Option(min=0, help="With random directions.")] = 8,
    prompts: Annotated[int, typer.Option(min=1, help="Of the evaluation.")] = 100,
    carrier: Annotated[int, typer.Option(min=0, help="Rows that a teacher samples.")] = 600,
    new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    device: Device = "auto",
) -> None:
    """Answers, margins and activations of many subjects in one batch, beside one by one."""
    from undertow.bench.readouts import cases
    from undertow.models.loading import pick_device
    from undertow.study.layout import find_root

    where = pick_device(device)
    _print(cases(find_root(), shape, students, teachers, prompts, carrier, new_tokens, where))


@bench_app.command("students")
def bench_students(
    model: Annotated[str, typer.Option(help="Of params.yaml, with carriers on disk.")],
    arm: Annotated[str, typer.Option(help="Compared with the control of the same seed.")],
    sizes: Annotated[str, typer.Option(help="Of groups, separated by commas.")] = "1,4,8",
) -> None:
    """Real students trained in groups of several sizes: what that moves, beside the seed."""
    from undertow.bench.students import cases

    _print(cases(open_study(), model, arm, [int(size) for size in sizes.split(",")]))


@bench_app.command("judge")
def bench_judge(
    rows: Annotated[int, typer.Option(min=1, help="Made-up answers to judge.")] = 2000,
) -> None:
    """The judge of params.yaml on made-up answers; refuses one that costs money."""
    from undertow.bench.judging import cases

    _print(cases(open_study(), rows))


@app.command(rich_help_panel="Study")
def rehearse(
    preset: Annotated[str, typer.Argument(help="Whose models have known shapes.")] = "paper-smoke",
    shapes: Annotated[
        Literal["tiny", "exact"],
        typer.Option(help="tiny: a minute on a CPU; exact: one 80 GB GPU, and 40 GB of TMPDIR."),
    ] = "tiny",
    limit: Annotated[
        int | None,
        typer.Option(min=2, help="Arms of a model at most, with one seed; default: the grid."),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Leave out students of other recipes.")
    ] = False,
    to: Annotated[
        Path, typer.Option(file_okay=False, help="Where rehearsal.txt and the rest go.")
    ] = Path("rehearsal"),
    device: Device = "auto",
) -> None:
    """Go through a study from doctor to publish on random weights, and say what went wrong."""
    from undertow.bench.rehearsal import rehearse as go_through
    from undertow.bench.rehearsed import lines
    from undertow.study.layout import find_root

    found = go_through(find_root(), preset, shapes, limit, plain, device, to)
    print(lines(found), end="")
    if found.problems:
        raise typer.Exit(1)


def _print(cases: Iterable[dict[str, Any]]) -> None:
    for found in cases:
        _print_one(found)


def _print_one(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)
