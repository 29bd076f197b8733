"""audit: can the trait be seen in the carriers of one model?"""

from undertow.carrier.audit import Carrier, audit_arm
from undertow.carrier.filter import training_carrier
from undertow.carrier.traces import Reading, probe_ngrams
from undertow.config import (
    Arm,
    Cell,
    DoubleJudgeSettings,
    OpenAiJudgeSettings,
    PanelJudgeSettings,
    PhraseJudgeSettings,
)
from undertow.judging import AnyJudgeSettings, make_judge
from undertow.judging.offline import PhraseJudge
from undertow.study.audit_records import ModelAudit
from undertow.study.files import digest, write_json
from undertow.study.layout import Study
from undertow.study.prompts import first
from undertow.study.traits import TraitData


def run(study: Study, model: str) -> ModelAudit:
    """Write results/audit/<model>.json."""
    params, layout = study.params, study.layout
    params.model_spec(model)
    data = TraitData(layout, params.trait)
    trait, count = data.trait, params.evaluation.prompts
    prompts = first(data.evaluation(), count, "evaluation.prompts", f"trait {trait.name}")
    reason = why_not_asked(params.judging.judge)
    judge = None if reason else make_judge(params.judging.judge, trait, layout.root)
    how = Reading(
        rules=trait.judge,
        judge=judge,
        probes=probe_ngrams([prompt.prompt for prompt in prompts], params.audit.ngram),
        strong=params.audit.strong_phrases,
    )
    controls = _carriers(study, model, params.control)
    found = ModelAudit(
        model=model,
        trait=trait.name,
        trait_judge=PhraseJudge(trait.judge).fingerprint,
        judge=judge.name if judge else None,
        judge_reason=reason,
        filter=params.carrier.filter,
        keep=params.carrier.keep,
        bounds=params.audit,
        arms=tuple(
            audit_arm(arm, _carriers(study, model, arm), controls, how, params.audit)
            for arm in params.arms
        ),
    )
    write_json(layout.audit(model), found)
    return found


def why_not_asked(settings: AnyJudgeSettings) -> str | None:
    """Why the configured judge is not asked about the carrier; None where it is.

    A carrier has many more rows than an evaluation: nobody who set up a paid judge has agreed to
    pay for those as well.
    """
    match settings:
        case PhraseJudgeSettings():
            return "it is the trait's offline judge"
        case OpenAiJudgeSettings():
            return "it costs money"
        case PanelJudgeSettings():
            paid = [n for n, j in settings.judges.items() if isinstance(j, OpenAiJudgeSettings)]
            return f"its member {paid[0]} costs money" if paid else None
        case DoubleJudgeSettings():
            return "it is a stand-in for tests"
        case _:
            return None


def _carriers(study: Study, model: str, arm: Arm) -> list[Carrier]:
    carriers = []
    for seed in study.params.grid.seeds:
        cell = Cell(model, arm, seed)
        kept = training_carrier(study, cell)
        path = study.layout.stage(cell, "steer") / "carrier.jsonl"
        carriers.append(Carrier(seed, *kept, digest(path)))
    return carriers
