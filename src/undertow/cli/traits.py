"""Adding a trait: a skeleton to fill in, and what is wrong or weak before any study."""

from typing import Annotated

import typer

from undertow.cli.options import Json, open_study, show

PANEL = "Study"

app = typer.Typer()
trait_app = typer.Typer(help="Add a trait, and look at it before a study.", no_args_is_help=True)
app.add_typer(trait_app, name="trait", rich_help_panel=PANEL)

Name = Annotated[str, typer.Argument(help="A folder of data/traits.")]


@trait_app.command("new")
def trait_new(name: Name) -> None:
    """Write data/traits/NAME with every file that a trait needs, commented."""
    from undertow.study.layout import Layout, find_root
    from undertow.vetting.skeleton import write_skeleton

    print(f"{write_skeleton(Layout(find_root()), name)}: replace what says REPLACE, then")
    print(f"python cli.py trait check {name} --texts-only")


@trait_app.command("check")
def trait_check(
    name: Name,
    model: Annotated[
        str | None,
        typer.Option(help="Measure on this model; default: the first of the grid that is fetched."),
    ] = None,
    texts_only: Annotated[
        bool,
        typer.Option("--texts-only", help="Read prompts, openings and phrases; load no model."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what is wrong or weak in a trait; exit 3 where something is wrong.

    Texts take seconds, measuring on a model a minute or more; it is left out where a text is wrong.
    """
    if texts_only and model is not None:
        raise typer.BadParameter("--texts-only loads no model: leave out --model")
    from undertow.vetting.check import check_trait
    from undertow.vetting.findings import findings_text

    found = check_trait(open_study(), name, model, texts_only=texts_only)
    show(found, findings_text, as_json)
    if any(each.state == "wrong" for each in found):
        raise typer.Exit(3)
