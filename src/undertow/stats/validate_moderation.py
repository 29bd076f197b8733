"""A simulation of the variances between seeds alone: no prompts, no ratios.

Thousands of studies at once, to compare ways of moderating variances and to see coverage to a
third of a percent. Knows nothing about models or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from undertow.stats.draws import CONTROL, Draws, SeedErrors
from undertow.stats.family import stretch_of
from undertow.stats.intervals import Floats
from undertow.stats.moderation import Prior, fit_prior, moderate
from undertow.stats.seeds import Spread, prior_of

RESAMPLES = 4000


@dataclass(frozen=True)
class ModerationRow:
    """Coverage of 95 % intervals of an arm's shift, and their mean width over that of alone."""

    arms: int
    seeds: int
    control_seeds: int
    cv: float
    alone: float
    moderated: float
    width: float
    together: float  # share of studies in which all arms' simultaneous intervals hold
    smyth: float  # coverage of Smyth's moderated t
    smyth_width: float


def moderation_table(
    *,
    sizes: Sequence[tuple[int, int, int]] = ((7, 3, 3), (7, 3, 8), (7, 5, 5), (3, 3, 3)),
    cvs: Sequence[float] = (0.0, 0.3, 0.6, 1.0),
    studies: int = 1000,
    seed: int = 0,
) -> Iterator[ModerationRow]:
    """sizes: (arms, seeds, control seeds); the standard deviations are log-normal over arms."""
    for arms, seeds, controls in sizes:
        for cv in cvs:
            rng = np.random.default_rng([seed, arms, seeds, controls, round(100 * cv)])
            yield _row(rng, arms, seeds, controls, cv, studies)


def _row(
    rng: np.random.Generator, arms: int, seeds: int, controls: int, cv: float, studies: int
) -> ModerationRow:
    from scipy.special import stdtrit

    log_sd = np.sqrt(np.log1p(cv**2))
    sds = np.exp(log_sd * rng.standard_normal((studies, arms + 1)))
    own = sds[:, 1:, None] * rng.standard_normal((studies, arms, seeds))
    control = sds[:, :1, None] * rng.standard_normal((studies, 1, controls))
    shifts = own.mean(axis=2) - control.mean(axis=2)
    # Alone has as many control students as the arms have: what studies had so far.
    pairs = own - control[:, :, :seeds]
    reach = pairs.std(axis=2, ddof=1) / np.sqrt(seeds) * stdtrit(seeds - 1, 0.975)
    variances = np.concatenate([control.var(axis=2, ddof=1), own.var(axis=2, ddof=1)], axis=1)
    counts = np.array([controls] + [seeds] * arms, dtype=float)
    ours, smyths = np.empty_like(shifts), np.empty_like(shifts)
    together = np.empty(studies)
    for index, each in enumerate(variances):
        prior = fit_prior(each, counts - 1)
        if prior is None:
            raise ValueError("a study needs two seeds or more in two arms or more")
        deviations, caution = _deviations(each, counts, index)
        ours[index] = np.quantile(deviations, 0.95, axis=1)
        stretch = stretch_of(deviations / ours[index][:, None], 0.95, caution)
        together[index] = (np.abs(shifts[index]) < stretch * ours[index]).all()
        smyths[index] = _reach(each, counts, prior)

    def held(reach: Floats, of: Floats) -> float:
        return float((np.abs(of) < reach).mean())

    return ModerationRow(
        arms=arms,
        seeds=seeds,
        control_seeds=controls,
        cv=cv,
        alone=held(reach, pairs.mean(axis=2)),
        moderated=held(ours, shifts),
        width=float(ours.mean() / reach.mean()),
        together=float(together.mean()),
        smyth=held(smyths, shifts),
        smyth_width=float(smyths.mean() / reach.mean()),
    )


def _deviations(variances: Floats, counts: Floats, study: int) -> tuple[Floats, Floats]:
    """How far shifts may be off [arms, resamples], by the posterior of the variances.

    And the weights of the resamples [resamples] for what is said of all arms at once.
    """
    spreads = [Spread(float(v), 0.0, int(n), 1.0) for v, n in zip(variances, counts, strict=True)]
    errors = SeedErrors(Draws(RESAMPLES, study, 0.95), prior_of(spreads))
    found = [errors.of_mean(each, stream) for stream, each in enumerate(spreads)]
    return np.abs(np.array(found[1:]) - found[CONTROL]), errors.caution()


def _reach(variances: Floats, counts: Floats, prior: Prior) -> Floats:
    """Half widths [arms]: Welch-Satterthwaite on the moderated variances."""
    from scipy.special import stdtrit

    found = [moderate(v, n - 1, prior) for v, n in zip(variances, counts, strict=True)]
    terms = np.array([each.variance for each in found]) / counts
    freedom = np.array([each.freedom for each in found])
    total = terms[1:] + terms[0]
    both = total**2 / (terms[1:] ** 2 / freedom[1:] + terms[0] ** 2 / freedom[0])
    reach: Floats = stdtrit(np.minimum(both, prior.pooled), 0.975) * np.sqrt(total)
    return reach
