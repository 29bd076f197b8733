"""Dose-response fits against statsmodels and SciPy, the threshold and the verdict."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from studies import FLAT, HINGE, LINE
from undertow.stats.dose import DosePoint, between_seeds, fit_dose
from undertow.stats.forms import EDGE, FORMS

STRENGTHS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)


def study(counts, strengths=STRENGTHS, trials=100):
    return [
        DosePoint(x, tuple(row), (trials,) * len(row))
        for x, row in zip(strengths, counts, strict=True)
    ]


def totals(points):
    x = np.array([point.x for point in points])
    successes = np.array([sum(point.successes) for point in points])
    return x, successes, np.array([sum(point.trials) for point in points])


def likelihood(rates, successes, trials):
    rates = np.clip(rates, 1e-9, 1 - 1e-9)
    return float((successes * np.log(rates) + (trials - successes) * np.log1p(-rates)).sum())


counts_of_seven = st.lists(st.integers(1, 99), min_size=7, max_size=7)


# Fits


@given(counts_of_seven)
@example([1, 1, 1, 1, 1, 1, 83])
@example([1, 1, 1, 1, 1, 1, 99])
@example([99, 99, 99, 99, 99, 99, 2])
@settings(max_examples=25, deadline=None)
def test_the_logistic_curve_is_the_one_that_statsmodels_finds(counts):
    points = study([(k,) for k in counts])
    x, k, n = totals(points)
    reference = sm.GLM(np.c_[k, n - k], sm.add_constant(x), family=sm.families.Binomial()).fit()
    fit = fit_dose(points, resamples=0).fit("logistic")
    expected = likelihood(reference.fittedvalues, k, n)
    low, high = min(reference.fittedvalues), max(reference.fittedvalues)
    if low > 100 * EDGE and high < 1 - 100 * EDGE:
        assert fit.predict(x) == pytest.approx(reference.fittedvalues, abs=1e-4)
        assert fit.log_likelihood == pytest.approx(expected, abs=1e-5)
    else:
        # Ours holds rates away from 0 and 1, which a curve this steep gains from.
        assert fit.log_likelihood >= expected - 1e-6


@given(counts_of_seven)
@settings(max_examples=25, deadline=None)
def test_the_line_is_the_most_likely_that_scipy_finds(counts):
    points = study([(k,) for k in counts])
    x, k, n = totals(points)
    share = x / x.max()
    reference = minimize(
        lambda ends: -likelihood(ends[0] + (ends[1] - ends[0]) * share, k, n),
        x0=[0.5, 0.5],
        bounds=[(1e-6, 1 - 1e-6)] * 2,
    )
    fit = fit_dose(points, resamples=0).fit("linear")
    assert fit.log_likelihood >= -reference.fun - 1e-3
    assert likelihood(fit.predict(x), k, n) == pytest.approx(fit.log_likelihood, abs=1e-6)


def test_the_line_agrees_with_an_identity_link_in_statsmodels():
    points = study(LINE)
    x, k, n = totals(points)
    family = sm.families.Binomial(link=sm.families.links.Identity())
    reference = sm.GLM(np.c_[k, n - k], sm.add_constant(x), family=family).fit()
    assert fit_dose(points, resamples=0).fit("linear").predict(x) == pytest.approx(
        reference.fittedvalues, abs=1e-6
    )


@given(counts_of_seven)
@settings(max_examples=10, deadline=None)
def test_no_hinge_of_a_fine_grid_search_is_more_likely(counts):
    points = study([(k,) for k in counts])
    x, k, n = totals(points)
    fits = fit_dose(points, resamples=0)
    best = -np.inf
    for start in np.linspace(0, x[-2], 11):
        shape = np.maximum(x - start, 0) / (x[-1] - start)
        found = minimize(
            lambda ends, shape=shape: -likelihood(ends[0] + (ends[1] - ends[0]) * shape, k, n),
            x0=[k[0] / n[0], k[-1] / n[-1]],
            bounds=[(1e-6, 1 - 1e-6)] * 2,
        )
        best = max(best, -found.fun)
    hinge = fits.fit("hinge")
    assert hinge.log_likelihood >= best - 0.05
    assert hinge.log_likelihood >= fits.fit("linear").log_likelihood - 1e-6
    assert likelihood(hinge.predict(x), k, n) == pytest.approx(hinge.log_likelihood, abs=1e-6)


@given(st.lists(st.tuples(*[st.integers(0, 50)] * 2), min_size=4, max_size=9))
@settings(max_examples=50, deadline=None)
def test_fits_stay_finite_and_weights_sum_to_one_even_at_0_and_n(rows):
    found = fit_dose(study(rows, strengths=range(len(rows)), trials=50), resamples=0)
    assert sum(fit.weight for fit in found.fits) == pytest.approx(1)
    for fit in found.fits:
        rates = fit.predict(np.linspace(0, len(rows) - 1, 20))
        assert ((rates >= 0) & (rates <= 1)).all()
        assert np.isfinite(fit.log_likelihood)


def test_aicc_follows_its_formula_and_none_is_the_common_rate():
    found = fit_dose(study(LINE), resamples=0)
    assert [fit.form for fit in found.fits] == list(FORMS)
    _, k, n = totals(study(LINE))
    none = found.fit("none")
    assert none.low == none.high == pytest.approx(k.sum() / n.sum())
    parameters = 2 + 1  # the line's two and the dispersion
    penalty = 2 * parameters * (1 + (parameters + 1) / (21 - parameters - 1))
    line = found.fit("linear")
    assert line.aicc == pytest.approx(-2 * line.log_likelihood / found.dispersion + penalty)


# Dispersion


def test_seeds_that_agree_show_no_dispersion_and_one_seed_shows_nothing():
    assert between_seeds(study([(10, 10, 10)] * 4, STRENGTHS[:4])) == 0
    assert np.isnan(between_seeds(study([(10,)] * 4, STRENGTHS[:4])))
    assert fit_dose(study([(10, 10, 10)] * 7), resamples=0).dispersion == 1


def test_dispersion_is_one_for_binomial_seeds_and_grows_with_their_spread():
    rng = np.random.default_rng(0)
    binomial = rng.binomial(100, 0.3, size=(400, 3))
    rates = rng.beta(30, 70, size=(400, 3))
    spread = rng.binomial(100, rates)
    assert between_seeds(study(binomial, range(400))) == pytest.approx(1, abs=0.15)
    # beta-binomial: 1 + (n - 1) / (a + b + 1)
    assert between_seeds(study(spread, range(400))) == pytest.approx(1 + 99 / 101, abs=0.3)


def test_seeds_that_disagree_weaken_the_verdict():
    apart = [(0, 0, 12), (9, 0, 0), (0, 12, 0), (11, 0, 0), (5, 20, 32), (60, 15, 18), (27, 80, 40)]
    agreeing, disagreeing = (fit_dose(study(rows), resamples=0) for rows in (HINGE, apart))
    assert disagreeing.dispersion > 5
    lead = [found.fit("linear").aicc - found.fit("hinge").aicc for found in (agreeing, disagreeing)]
    assert lead[1] < lead[0] / 3


# Verdict, threshold and monotonicity


@pytest.mark.parametrize(
    ("counts", "verdict"), [(HINGE, "threshold"), (LINE, "continuous"), (FLAT, "none")]
)
def test_plain_cases_get_their_verdict_and_a_reason(counts, verdict):
    found = fit_dose(study(counts), resamples=0)
    assert found.verdict == verdict and found.reason


@given(st.floats(-100, 100), st.floats(0.01, 100))
@settings(max_examples=10, deadline=None)
def test_units_of_strength_change_nothing_but_the_threshold(offset, scale):
    before = fit_dose(study(HINGE), resamples=0)
    moved = [offset + scale * x for x in STRENGTHS]
    after = fit_dose(study(HINGE, moved), resamples=0)
    assert after.verdict == before.verdict
    assert after.threshold.value == pytest.approx(
        offset + scale * before.threshold.value, abs=0.01 * scale
    )
    assert [f.aicc for f in after.fits] == pytest.approx([f.aicc for f in before.fits], rel=1e-4)


def test_the_order_of_the_points_does_not_matter():
    forwards, backwards = study(HINGE), study(HINGE)[::-1]
    before, after = (fit_dose(points, resamples=0) for points in (forwards, backwards))
    assert [fit.form for fit in after.fits] == [fit.form for fit in before.fits]
    assert [f.aicc for f in after.fits] == pytest.approx([f.aicc for f in before.fits])


def test_the_threshold_has_an_interval_around_it_that_is_the_same_every_time():
    found = fit_dose(study(HINGE), resamples=100)
    threshold = found.threshold
    assert 0.1 < threshold.low < threshold.value < threshold.high < 0.2
    assert threshold.value == pytest.approx(0.15, abs=0.02)
    assert found == fit_dose(study(HINGE), resamples=100)


def test_a_flat_curve_has_no_threshold_and_says_why():
    threshold = fit_dose(study(FLAT), resamples=0).threshold
    assert threshold.value is None and "flat" in threshold.reason


def test_one_seed_is_too_little_for_anything_but_a_plain_threshold():
    found = fit_dose(study([(row[0],) for row in LINE]), resamples=0)
    assert found.verdict == "undecided" and "7 students" in found.reason


def test_three_strengths_are_too_few():
    found = fit_dose(study(LINE[:3], STRENGTHS[:3]))
    assert found.verdict == "undecided" and found.fits == () and found.threshold.value is None


def test_turning_back_is_noticed_and_rising_is_not():
    turning = [
        (5, 5, 5),
        (30, 30, 30),
        (60, 60, 60),
        (60, 60, 60),
        (30, 30, 30),
        (5, 5, 5),
        (5, 5, 5),
    ]
    assert fit_dose(study(turning), resamples=99).monotone <= 0.02
    assert fit_dose(study(LINE), resamples=99).monotone > 0.2
    falling = list(reversed(LINE))
    assert fit_dose(study(falling), resamples=99).monotone > 0.2


@pytest.mark.parametrize(
    "bad",
    [
        DosePoint(0.1, (1, 2), (10,)),
        DosePoint(0.1, (), ()),
        DosePoint(0.1, (11,), (10,)),
        DosePoint(0.1, (0,), (0,)),
        DosePoint(float("nan"), (1,), (10,)),
    ],
)
def test_counts_that_are_not_counts_are_refused(bad):
    with pytest.raises(ValueError, match="x"):
        fit_dose([*study(LINE), bad])
