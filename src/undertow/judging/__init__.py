"""Judges: who decides whether a response shows the trait."""

from typing import TYPE_CHECKING

from undertow.config import DoubleJudgeSettings, PhraseJudgeSettings
from undertow.judging.base import Judge, JudgeRow, Verdict
from undertow.judging.double import ScriptedJudge
from undertow.judging.phrases import PhraseJudge

if TYPE_CHECKING:
    from undertow.traits import Trait

__all__ = ["Judge", "JudgeRow", "Verdict", "make_judge"]


def make_judge(settings: PhraseJudgeSettings | DoubleJudgeSettings, trait: "Trait") -> Judge:
    """The judge that params.yaml asks for."""
    match settings:
        case PhraseJudgeSettings():
            return PhraseJudge(trait.judge)
        case DoubleJudgeSettings():
            return ScriptedJudge(
                settings.marker, settings.unscored_marker, settings.seconds_per_row
            )
