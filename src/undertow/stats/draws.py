"""The random numbers of a resampling, drawn once and shared by all that is resampled together.

Every number has a stream of its own, named by what it belongs to: what one arm draws does not
depend on which others are there. Knows nothing about readouts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from undertow.stats.intervals import Floats
from undertow.stats.population import freedom_of
from undertow.stats.seeds import (
    Error,
    SeedPrior,
    Spread,
    added,
    error_alone,
    error_of_mean,
    spread,
    spread_at,
)

CONTROL = 0  # the stream of the control students; arms count from 1


class Draws:
    """Random numbers by sample size, drawn once and shared by every arm of that size."""

    def __init__(self, resamples: int, seed: int, confidence: float) -> None:
        self.confidence = confidence
        self.resamples = resamples
        self._seed = seed
        self._drawn: dict[tuple[object, ...], Floats] = {}

    def weights(self, prompts: int) -> Floats:
        """Shares of the prompts [resamples, prompts], each row summing to 1."""
        if ("weights", prompts) not in self._drawn:
            stream = np.random.default_rng([self._seed, 0, prompts])
            equal = np.full(prompts, 1 / prompts)
            drawn = stream.multinomial(prompts, equal, self.resamples) / prompts
            self._drawn["weights", prompts] = drawn
        return self._drawn["weights", prompts]

    def means(self, values: Floats) -> Floats:
        """Means [..., resamples] of values [..., prompts] over resampled prompts.

        Resampling n prompts gives their variance times (n - 1) / n, which is made good.
        """
        prompts = values.shape[-1]
        middle = values.mean(axis=-1, keepdims=True)
        resampled = values @ self.weights(prompts).T
        stretched: Floats = middle + (resampled - middle) * math.sqrt(prompts / (prompts - 1))
        return stretched

    def seed_errors(self, seeds: int) -> Floats:
        """Student t errors [resamples] of a mean over so many seeds."""
        if ("seeds", seeds) not in self._drawn:
            stream = np.random.default_rng([self._seed, 1, seeds])
            self._drawn["seeds", seeds] = stream.standard_t(seeds - 1, self.resamples)
        return self._drawn["seeds", seeds]

    def rate_errors(self, model: int) -> Floats:
        """Standard normal errors [resamples] of one of the four rates."""
        return self._normal(2, model)

    def between_seeds(self, stream: int) -> Floats:
        """Standard normal errors [resamples] of the mean over one arm's seeds."""
        return self._normal(3, stream)

    def variances(self, found: Error, stream: int) -> Floats:
        """Of a mean with this error, [resamples]: variance x freedom / chi^2."""
        if math.isinf(found.freedom):
            return np.full(self.resamples, found.variance)
        rng = np.random.default_rng([self._seed, 4, stream])
        chi: Floats = 2 * rng.standard_gamma(found.freedom / 2, self.resamples)
        return found.variance * found.freedom / chi

    def uniform(self, kind: str, stream: int) -> Floats:
        """Uniform numbers [resamples]: `which` population of variances, or `within` it."""
        if (kind, stream) not in self._drawn:
            rng = np.random.default_rng([self._seed, 5, kind == "within", stream])
            self._drawn[kind, stream] = rng.random(self.resamples)
        return self._drawn[kind, stream]

    def _normal(self, kind: int, stream: int) -> Floats:
        if (kind, stream) not in self._drawn:
            drawn = np.random.default_rng([self._seed, kind, stream]).standard_normal
            self._drawn[kind, stream] = drawn(self.resamples)
        return self._drawn[kind, stream]


@lru_cache(maxsize=4)
def drawn(resamples: int, seed: int, confidence: float) -> Draws:
    """The draws of a study: the same numbers whoever asks, so they are kept."""
    return Draws(resamples, seed, confidence)


@dataclass(frozen=True)
class SeedErrors:
    """How the error between seeds is taken from rows of readouts.

    Without a prior from the arm alone, its seeds paired with the control's where both have as
    many. With one, arm and control apart: every resample draws how variances are spread over
    the model's arms, then the variance of each arm, then its error.
    """

    draws: Draws
    prior: SeedPrior | None = None
    stream: int = 1  # of the arm
    model: int = 0  # where the streams of this model begin
    # Variances that were drawn: arms share the control, an arm's shifts and ratios its own.
    _drawn: dict[tuple[Spread, int], Floats] = field(
        default_factory=dict, repr=False, compare=False
    )

    def of_arm(self, stream: int) -> SeedErrors:
        """The same for another arm of the model."""
        return replace(self, stream=stream)

    def resampled(
        self,
        moved: Floats,
        reference: Floats,
        push: Floats | float = 0.0,
        sign: float = 1.0,
    ) -> Floats | float:
        """Errors [resamples] of mean(moved) - mean(reference) - mean(push), rows each.

        sign: of the random numbers; errors of rates near 0 and 1 are not symmetric.

        A single row of reference has no seeds to differ by: the base model, or one student.
        Arms that share a control share its error.
        """
        if self.prior is None:
            total = self._alone(moved, reference, push)
            if total.variance == 0:
                return 0.0
            if len(reference) in (1, len(moved)):
                return sign * math.sqrt(total.variance) * self.draws.seed_errors(len(moved))
            normal = sign * self.draws.between_seeds(self.stream)
            return normal * np.sqrt(self.draws.variances(total, self.stream))
        arm, control = self._spreads(moved, reference, push)
        return self.of_mean(arm, self.stream, sign) - self.of_mean(control, CONTROL, sign)

    def of_mean(self, found: Spread, stream: int, sign: float = 1.0) -> Floats:
        """Errors [resamples] of a mean over seeds; an arm alone knows of no curve."""
        if self.prior is None:
            found = found._replace(rate=None)
        normal = sign * self.draws.between_seeds(self.model + stream)
        return error_of_mean(found, self.variances(found, stream), normal)

    def variances(self, found: Spread, stream: int) -> Floats:
        """Of a single student [resamples]; 0 for one seed, which shows none."""
        if found.seeds == 1:
            return np.zeros(self.draws.resamples)
        stream += self.model
        if self.prior is None:
            alone = error_alone(found)
            return self.draws.variances(alone, stream) * found.seeds
        if (found, stream) not in self._drawn:
            which = self.draws.uniform("which", self.model)
            within = self.draws.uniform("within", stream)
            drawn = self.prior.population.variances(self.prior.shown(found), which, within)
            self._drawn[found, stream] = drawn * found.unit**2
        return self._drawn[found, stream]

    def caution(self) -> Floats:
        """Weights [resamples], 1 in the mean, under which arms are taken as less alike.

        For what is said of all arms at once (population.py); an arm alone knows of no others.
        """
        if self.prior is None:
            return np.ones(self.draws.resamples)
        return self.prior.population.caution(self.draws.uniform("which", self.model))

    def freedom(self, moved: Floats, reference: Floats) -> float | None:
        """Degrees of freedom of mean(moved) - mean(reference); None where seeds show no error."""
        if self.prior is None:
            alone = self._alone(moved, reference, 0.0).freedom
            return alone if math.isfinite(alone) else None
        arm, control = self._spreads(moved, reference, 0.0)
        return self.freedom_of_sum([(1.0, arm, self.stream), (1.0, control, CONTROL)])

    def freedom_of_sum(self, terms: Sequence[tuple[float, Spread, int]]) -> float | None:
        """Of a weighted sum of means over seeds: (weight, spread, stream) each.

        Those of a chi-square whose logarithm spreads as that of the drawn variances does.
        """
        variance = np.zeros(self.draws.resamples)
        for weight, found, stream in terms:
            one = self.variances(found, stream) + found.residual
            variance += weight**2 * one / found.seeds
        freedom = freedom_of(variance)
        return freedom if math.isfinite(freedom) else None

    def _alone(self, moved: Floats, reference: Floats, push: Floats | float) -> Error:
        if len(reference) in (1, len(moved)):
            return error_alone(spread(moved - reference - push))
        return added([error_alone(spread(moved - push)), error_alone(spread(reference))])

    def _spreads(
        self, moved: Floats, reference: Floats, push: Floats | float
    ) -> tuple[Spread, Spread]:
        # A teacher that all seeds share takes nothing from how they differ.
        if isinstance(push, np.ndarray) and (push == push[:1]).all():
            push = 0.0
        # The unit is that of the readouts, also where a teacher's are subtracted.
        return spread_at(moved - push, moved), spread_at(reference, reference)


def seed_error(difference: Floats, draws: Draws) -> Floats | float:
    """Errors [resamples] of the mean of difference [seeds, prompts] that seeds explain."""
    return SeedErrors(draws).resampled(difference, np.zeros((1, difference.shape[1])))
