"""Audits beside the summary's arms: those that belong to exactly these carriers, else a reason."""

from collections.abc import Mapping

from undertow.analysis.summary import ArmSummary, Summary
from undertow.config import Cell, Params, parse_arm
from undertow.study.audit_records import ArmAudit, ModelAudit
from undertow.study.found import read_record
from undertow.study.layout import Layout, Study
from undertow.study.records import CellResult


def with_audits(summary: Summary, study: Study, grid: Mapping[Cell, CellResult]) -> Summary:
    """The summary with the audit of every arm, or with the reason why there is none."""
    params, layout = study
    found = {model: read_audit(layout, model) for model in summary.models}
    arms = [_audited(arm, found[arm.model], params, grid) for arm in summary.arms]
    return summary.model_copy(update={"arms": tuple(arms)})


def read_audit(layout: Layout, model: str) -> ModelAudit | None:
    """results/audit/<model>.json; None where the audit has not been run."""
    path = layout.audit(model)
    if not path.exists():
        return None
    return read_record(path, ModelAudit)


def _audited(
    arm: ArmSummary, found: ModelAudit | None, params: Params, grid: Mapping[Cell, CellResult]
) -> ArmSummary:
    audit = None if found is None else next((a for a in found.arms if a.arm == arm.arm), None)
    reason = _why_none(arm, found, audit, params, grid)
    if reason is None and audit is not None:
        # Seed by seed it stands in the audit's own file; the summary has what is concluded from.
        return arm.model_copy(update={"audit": audit.model_copy(update={"seeds": ()})})
    return arm.model_copy(update={"no_audit": f"{reason}; python cli.py audit --model {arm.model}"})


def _why_none(
    arm: ArmSummary,
    found: ModelAudit | None,
    audit: ArmAudit | None,
    params: Params,
    grid: Mapping[Cell, CellResult],
) -> str | None:
    """Why an arm has no audit, None where it has; an audit of other carriers is none."""
    if found is None:
        return "the carrier has not been audited"
    if audit is None:
        return "the audit was made without this arm"
    now = (params.trait, params.audit, params.carrier.filter, params.carrier.keep)
    if (found.trait, found.bounds, found.filter, found.keep) != now:
        return "the audit was made under other parameters"
    seeds = {each.seed for each in audit.seeds}
    if not arm.is_control and seeds != set(params.grid.seeds):
        return "the audit was made with other seeds"
    for each in audit.seeds:
        pairs = (
            (parse_arm(arm.arm), each.seed, each.carrier),
            (params.control, each.reference_seed, each.reference_carrier),
        )
        for owner, seed, digest in pairs:
            cell = grid.get(Cell(arm.model, owner, seed))
            if cell is None or cell.digests.get("carrier") != digest:
                return "the audit was made of another carrier"
    return None
