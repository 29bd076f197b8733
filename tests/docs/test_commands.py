"""Every command that a page shows exists, with every option, and is run here or marked as not."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from dvc.cli.parser import get_main_parser

from docs.commands import Command, named, shown
from repository import ROOT, Repository, tiny_params
from undertow.cli.app import app

SHOWN, NAMED = list(shown()), list(named())
# The pages' models; any that are as small will do.
MODELS = {"smollm2-135m-instruct": "tiny-llama2", "qwen25-coder-05b-instruct": "tiny-qwen2"}
WORDS = {"NAME": "gloom", "FOLDER": "published"}
# Exit codes that mean no more than that a machine or a trait is not ready for a study yet.
FOUND_SOMETHING = {
    "python cli.py doctor": 3,
    "python cli.py trait check NAME": 3,
    "python cli.py trait check NAME --texts-only": 3,
}


def title(command: Command) -> str:
    return f"{command.page}: {command.text[:60]}"


def parsed(words: list[str]) -> str:
    """Parse a command line as it would be, without running it; the command's name."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("undertow", list(words))
    while hasattr(context.command, "commands"):
        rest = [*context._protected_args, *context.args]
        if not rest and context.command.invoke_without_command:
            break
        name, inner, rest = context.command.resolve_command(context, rest)
        context = inner.make_context(name, rest, parent=context)
    return str(context.command.name)


def test_the_pages_commands_are_found():
    assert len(SHOWN) > 60 and len(NAMED) > 30
    assert {"README.md", "docs/quickstart.md", "docs/study.md"} <= {one.page for one in SHOWN}
    assert not all(one.marked for one in SHOWN)


@pytest.mark.parametrize("command", [*SHOWN, *NAMED], ids=title)
def test_a_command_exists_with_all_of_its_options(command: Command):
    words = command.words
    if command.ours is not None:
        if "--help" in command.ours:
            return
        assert parsed(command.ours)
    elif words[0] == "dvc" and len(words) > 2:
        assert get_main_parser().parse_args(words[1:])
    elif words[0] == "dvc":  # its name alone, as in "plots are views for dvc plots"
        with pytest.raises(SystemExit, match=r"^0$"):
            get_main_parser().parse_args([words[1], "--help"])
    elif words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_an_option_that_does_not_exist_is_found():
    with pytest.raises(Exception, match="--arms"):
        parsed(["steer", "--model", "M", "--arms", "trait_1"])
    with pytest.raises(Exception, match="prune"):
        parsed(["prune"])


def test_what_is_neither_ours_nor_dvc_s_is_marked_or_run_by_ci():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    left = [one for one in SHOWN if not one.marked and one.ours is None and one.words[0] != "dvc"]
    assert [one for one in left if one.text not in ci] == []


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The demo's grid on tiny models of the pages' names, as the branch `main`."""
    folder = tmp_path_factory.mktemp("pages")
    params = tiny_params(folder / "models")
    params["models"] = {name: params["models"][tiny] for name, tiny in MODELS.items()}
    arms = ["trait_0", "trait_1", "random_1"]
    params["grid"] = {"models": list(MODELS), "arms": arms, "seeds": [0]}
    repository = Repository(folder / "checkout", params)
    shutil.copytree(ROOT / "presets", repository.root / "presets")
    repository.init()
    repository.git("branch", "-M", "main")
    return repository


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_unmarked_commands_run_in_the_order_of_their_pages(study: Repository):
    """A study first: most pages are about one that is there. Each is run once."""
    own = [one for one in SHOWN if not one.marked and one.words[0] in ("python", "dvc")]
    assert len(own) > 15
    first = [one for one in own if "run-cells" in one.text or one.text == "dvc repro"]
    last = [one for one in own if "preset use" in one.text]
    rest = [one for one in own if one not in first and one not in last]
    for text in dict.fromkeys(one.text for one in [*first, *rest]):
        run(study, text)
        if text == "dvc repro":
            study.commit("study")
    shutil.copy(ROOT / "params.yaml", study.root)  # an edited one is not written over
    for one in last:
        run(study, one.text)
    assert (study.root / WORDS["FOLDER"] / "summary.json").is_file()
    assert (study.root / "teacher" / "config.json").is_file()


def run(study: Repository, text: str) -> None:
    command = Command("", text, marked=False)
    words = [WORDS.get(word, word) for word in command.words]
    if command.ours is not None:
        study.cli(*words[2:], expect=FOUND_SOMETHING.get(text, 0))
    else:
        study.dvc(*words[1:])
    if text == "python cli.py trait new NAME":
        assert Path(study.root / "data" / "traits" / WORDS["NAME"]).is_dir()
