"""Judges: who decides whether a response shows the trait."""

from pathlib import Path
from typing import TYPE_CHECKING

from undertow.config import (
    ClassifierJudgeSettings,
    DoubleJudgeSettings,
    OpenAiJudgeSettings,
    PanelJudgeSettings,
    PhraseJudgeSettings,
)
from undertow.judging.base import Judge, JudgeRow, Verdict, judge_all
from undertow.judging.double import ScriptedJudge
from undertow.judging.offline import PhraseJudge

if TYPE_CHECKING:
    from undertow.study.traits import Trait

__all__ = ["CACHE", "Judge", "JudgeRow", "Verdict", "judge_all", "make_judge"]

CACHE = Path(".undertow") / "judge-cache"  # below the repository root
AnyJudgeSettings = (
    PhraseJudgeSettings
    | DoubleJudgeSettings
    | OpenAiJudgeSettings
    | ClassifierJudgeSettings
    | PanelJudgeSettings
)


def make_judge(settings: AnyJudgeSettings, trait: "Trait", root: Path) -> Judge:
    """The judge that params.yaml asks for; `root` is the repository root, for the cache."""
    match settings:
        case PhraseJudgeSettings():
            return PhraseJudge(trait.judge)
        case DoubleJudgeSettings():
            return ScriptedJudge(
                settings.marker, settings.unscored_marker, settings.seconds_per_row
            )
        case OpenAiJudgeSettings():
            # The client takes seconds to import, and the offline judges do without it.
            from undertow.judging.openai.judge import OpenAiJudge
            from undertow.judging.openai.rubrics import choose_rubric

            rubric = choose_rubric(settings.rubric, trait.name, trait.rubric)
            return OpenAiJudge(settings, rubric, root / CACHE)
        case ClassifierJudgeSettings():
            from undertow.judging.classifier import ClassifierJudge

            return ClassifierJudge(settings)
        case PanelJudgeSettings():
            from undertow.judging.panel import PanelJudge

            members = {
                name: make_judge(member, trait, root) for name, member in settings.judges.items()
            }
            return PanelJudge(members, settings.rule)
