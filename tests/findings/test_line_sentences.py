"""What is said of the transfer line: words come from intervals alone."""

import pytest

from factories import make_params, make_result
from undertow.analysis.lines import NullRecord
from undertow.analysis.summarise import summarise
from undertow.analysis.summary import Summary
from undertow.findings.lines import difference_sentences, line_sentences, push
from undertow.stats.intervals import Estimate

MODELS = ("smollm2-135m", "qwen-coder-500m")


@pytest.fixture(scope="module")
def summary() -> Summary:
    params = make_params(MODELS, ("trait_0", "trait_0.5", "trait_1", "random_1"))
    return summarise(params, {cell: make_result(params, cell) for cell in params.cells()})


def said(summary: Summary, **changes: object) -> str:
    """The sentence by margin of the first model, its line changed."""
    lines = tuple(
        line.model_copy(update=changes)
        if (line.model, line.readout) == (MODELS[0], "margin")
        else line
        for line in summary.lines
    )
    return line_sentences(summary.model_copy(update={"lines": lines}), MODELS[0])[0]


def test_the_pooled_tau_comes_with_its_interval_and_strengths(summary):
    text = said(summary, tau=Estimate(0.5, 0.4, 0.6), freedom=7.4)
    assert "over 2 strengths: 0.50 [0.40, 0.60], on 7 degrees of freedom" in text


def test_an_undefined_tau_says_why_and_nothing_else(summary):
    text = said(summary, tau=Estimate.unknown("no teacher moved"))
    assert text.endswith("undefined, because no teacher moved.")


@pytest.mark.parametrize(("p", "words"), [(0.2, "One tau fits"), (0.01, "One tau does not fit")])
def test_one_tau_fits_or_does_not(summary, p, words):
    assert words in said(summary, tau=Estimate(0.5, 0.4, 0.6), fit_p=p)


def test_an_intercept_is_named_only_where_its_interval_excludes_0(summary):
    tau = Estimate(0.5, 0.4, 0.6)
    assert "does not move" in said(summary, tau=tau, intercept=Estimate(0.3, 0.1, 0.5))
    assert "does not move" not in said(summary, tau=tau, intercept=Estimate(0.3, -0.1, 0.7))


def test_how_far_random_draws_moved_and_how_much_came_across_are_two_statements(summary):
    null = NullRecord(draws=8, mean=0.0, sd=0.001, low=-0.002, high=0.002)
    changes = {
        "tau": Estimate(0.5, 0.4, 0.6),
        "random_teacher": null,
        "random_slope": Estimate(0.45, 0.3, 0.6),
        "against_random": Estimate(0.05, -0.1, 0.2),
    }
    text = said(summary, **changes)
    assert "8 random directions move the teacher by" in text
    assert "the trait moved it further at 0.5, 1" in text
    assert "came across, no other share than of the trait's" in text
    wide = null.model_copy(update={"low": -99.0, "high": 99.0})
    other = said(
        summary, **changes | {"random_teacher": wide, "against_random": Estimate(0.3, 0.1, 0.5)}
    )
    assert "no strength of the trait moved it further" in other
    assert "another share than of the trait's" in other


def test_files_from_before_have_no_line_to_speak_of(summary):
    assert line_sentences(summary.model_copy(update={"lines": ()}), MODELS[0]) == []


def test_two_models_are_told_apart_by_the_interval_of_their_difference(summary):
    found = summary.model_differences
    assert found
    changed = [
        each.model_copy(update={"estimate": estimate})
        for each, estimate in zip(
            (found[0], found[0]), (Estimate(0.3, 0.1, 0.5), Estimate(0.3, -0.1, 0.7)), strict=True
        )
    ]
    first, second = difference_sentences(
        summary.model_copy(update={"model_differences": tuple(changed)})
    )
    assert first.startswith("Pooled tau of ") and first.endswith("which excludes 0.")
    assert second.endswith("which covers 0.")


@pytest.mark.parametrize(
    ("slope", "against", "verdict"),
    [
        (Estimate(0.5, 0.3, 0.7), Estimate(0.0, -0.2, 0.2), "any push"),
        (Estimate(0.3, -0.1, 0.7), Estimate(0.2, -0.2, 0.6), "undecided"),
        (Estimate(0.3, 0.1, 0.5), Estimate(0.2, -0.1, 0.4), "undecided"),
        (Estimate(0.1, 0.0, 0.2), Estimate(0.4, 0.2, 0.6), "another share"),
        (Estimate.unknown("few draws"), Estimate.unknown("few draws"), None),
    ],
)
def test_whether_any_push_comes_across_is_read_off_the_draws_slope(
    summary, slope, against, verdict
):
    tau = Estimate(0.5, 0.4, 0.6)
    line = next(line for line in summary.lines if line.readout == "margin")
    changes = {"tau": tau, "random_slope": slope, "against_random": against}
    assert push(line.model_copy(update=changes)) == verdict


def test_a_pooled_tau_without_bounds_tells_no_push_from_another(summary):
    line = next(line for line in summary.lines if line.readout == "margin")
    known = {"random_slope": Estimate(0.5, 0.3, 0.7), "against_random": Estimate(0.0, None, None)}
    assert push(line.model_copy(update=known | {"tau": Estimate(0.5, None, None)})) == "undecided"
    assert push(line.model_copy(update=known | {"tau": Estimate(0.5, 0.1, None)})) == "undecided"
