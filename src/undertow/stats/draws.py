"""The random numbers of a resampling, drawn once and shared by all that is resampled together.

Every number has a stream of its own, named by what it belongs to: what one arm draws does not
depend on which others are there. Knows nothing about readouts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from undertow.stats.intervals import Floats
from undertow.stats.seeds import (
    Error,
    SeedPrior,
    added,
    error_alone,
    error_moderated,
    spread,
    unit_of,
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

    def error(self, total: Error, normal: Floats, shared: float, stream: int) -> Floats:
        """t errors [resamples] of this size, from normal ones of standard deviation 1.

        shared: degrees of freedom whose chi-square all arms have in common, because their
        moderated variances have; the others are this stream's own.
        """
        spread = math.sqrt(total.variance)
        if math.isinf(total.freedom):
            return spread * normal
        common = min(shared, total.freedom)
        chi = self._chi_square(common, 0)
        if total.freedom > common:
            chi = chi + self._chi_square(total.freedom - common, stream + 1)
        error: Floats = spread * normal / np.sqrt(chi / total.freedom)
        return error

    def _normal(self, kind: int, stream: int) -> Floats:
        if (kind, stream) not in self._drawn:
            drawn = np.random.default_rng([self._seed, kind, stream]).standard_normal
            self._drawn[kind, stream] = drawn(self.resamples)
        return self._drawn[kind, stream]

    def _chi_square(self, freedom: float, stream: int) -> Floats:
        if freedom <= 0:
            return np.zeros(self.resamples)
        rng = np.random.default_rng([self._seed, 4, stream])
        return 2 * rng.standard_gamma(freedom / 2, self.resamples)


@lru_cache(maxsize=4)
def drawn(resamples: int, seed: int, confidence: float) -> Draws:
    """The draws of a study: the same numbers whoever asks, so they are kept."""
    return Draws(resamples, seed, confidence)


@dataclass(frozen=True)
class SeedErrors:
    """How the error between seeds is taken from an arm's rows.

    Without a prior from the arm alone, its seeds paired with the control's where both have as
    many; with one from moderated variances, arm and control apart.
    """

    draws: Draws
    prior: SeedPrior | None = None
    stream: int = 1

    def size(self, moved: Floats, reference: Floats, push: Floats | float = 0.0) -> Error:
        """Of mean(moved) - mean(reference) - mean(push), rows [seeds, prompts] each.

        A single row of reference has no seeds to differ by: the base model, or one student.
        """
        if self.prior is not None:
            return added(self._terms(moved, reference, push), self.prior.ratio.pooled)
        if len(reference) in (1, len(moved)):
            return error_alone(spread(moved - reference - push))
        return added([error_alone(spread(moved - push)), error_alone(spread(reference))])

    def resampled(
        self, moved: Floats, reference: Floats, push: Floats | float = 0.0
    ) -> Floats | float:
        """Errors [resamples] of that size; arms that share a control share its error."""
        total = self.size(moved, reference, push)
        if total.variance == 0:
            return 0.0
        if self.prior is None:
            if len(reference) in (1, len(moved)):
                return math.sqrt(total.variance) * self.draws.seed_errors(len(moved))
            return self.draws.error(total, self.draws.between_seeds(self.stream), 0, self.stream)
        arm, control = self._terms(moved, reference, push)
        normal = math.sqrt(arm.variance) * self.draws.between_seeds(self.stream)
        normal -= math.sqrt(control.variance) * self.draws.between_seeds(CONTROL)
        normal /= math.sqrt(total.variance)
        return self.draws.error(total, normal, self.prior.ratio.shared, self.stream)

    def _terms(self, moved: Floats, reference: Floats, push: Floats | float) -> tuple[Error, Error]:
        assert self.prior is not None  # size and resampled ask for terms with a prior alone
        # The unit is that of the readouts, also where a teacher's are subtracted.
        arm = spread(moved - push, unit_of(moved))
        control = spread(reference, unit_of(reference))
        return error_moderated(arm, self.prior), error_moderated(control, self.prior)


def seed_error(difference: Floats, draws: Draws) -> Floats | float:
    """Errors [resamples] of the mean of difference [seeds, prompts] that seeds explain."""
    return SeedErrors(draws).resampled(difference, np.zeros((1, difference.shape[1])))
