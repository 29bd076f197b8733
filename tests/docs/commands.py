"""The commands that README and docs show: what stands in fences, and what is named in the text.

A command of a fence is run by a test, or the page says that it is not: `# not run by tests` on a
line of its own stands for all of its fence below it, in the comment behind a command for that one.
"""

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from repository import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARK = "not run by tests"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"`((?:python cli\.py|undertow|dvc) [^`]*)`")
OURS = ("python cli.py", "undertow")
PROGRAMS = ("python", "undertow", "dvc", "make", "pip", "git", "cp", "mkdir", "export", "sudo")
OTHERS = ("apt-get", "rclone", "mlflow", "vllm", "llama-cli", "accelerate", "torchrun", "ray")


class Command(NamedTuple):
    """One command; page: from the repository's root. marked: the page says that no test runs it."""

    page: str
    text: str
    marked: bool

    @property
    def words(self) -> list[str]:
        """Without comment and redirection."""
        words = shlex.split(self.text, comments=True)
        return words[: next((n for n, word in enumerate(words) if word in (">", "|")), None)]

    @property
    def ours(self) -> list[str] | None:
        """The arguments of our command line; None for another program."""
        words = self.words
        if words[:2] == ["python", "cli.py"]:
            return words[2:]
        return words[1:] if words[:1] == ["undertow"] else None


def shown() -> Iterator[Command]:
    """The commands of all fences, in the order of the pages."""
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
            if not language and text.split()[0] in (*PROGRAMS, *OTHERS, "#"):
                yield from _of_fence(name, text)


def _of_fence(page: str, text: str) -> Iterator[Command]:
    whole = False
    for line in text.replace("\\\n", " ").splitlines():
        command, _, comment = line.partition(" # ") if "# " in line[1:] else (line, "", "")
        if line.startswith("#"):
            whole = whole or MARK in line
        elif command.strip():
            for part in command.split(" && "):
                yield Command(page, " ".join(part.split()), whole or MARK in comment)


def named() -> Iterator[Command]:
    """The commands that the text names in passing."""
    for page in PAGES:
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        for command in NAMED.findall(text):
            yield Command(str(page.relative_to(ROOT)), " ".join(command.split()), marked=True)
