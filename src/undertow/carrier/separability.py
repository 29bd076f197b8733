"""How well a classifier tells a steered teacher's answers from the unsteered teacher's.

Cross-validated AUC with folds of whole prompts: were one answer to a prompt in training and the
other in the test, a classifier could win by recognising the prompt.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from undertow.stats.intervals import Estimate, wilson
from undertow.study.records import Response
from undertow.texts.statistics import list_markers, sentences, words

FOLDS = 5
FEWEST_PROMPTS = 2 * FOLDS  # a fold needs two prompts to compare answers across prompts
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Classifier(Protocol):
    """The two methods of a scikit-learn estimator that are used here."""

    def fit(self, rows: object, labels: object) -> object: ...

    def decision_function(self, rows: object) -> Floats: ...


class Texts(NamedTuple):
    """Answers of both carriers: labels 1 for the arm and 0 for the reference."""

    answers: Sequence[Response]
    labels: Integers  # [rows]
    prompts: Integers  # [rows]: the number of the prompt that a row answers


def words_auc(texts: Texts, confidence: float, seed: int = 0) -> Estimate:
    """AUC of logistic regression on TF-IDF weighted single words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    if not any(words(row.response) for row in texts.answers):
        return Estimate.unknown("no answer holds a word")
    rows = np.array([row.response for row in texts.answers], dtype=object)

    def fresh() -> Classifier:
        # A list of words is given instead of sklearn's own pattern, which drops single letters
        # and raises where a training fold holds nothing else.
        vectorizer = TfidfVectorizer(analyzer=_analyzed, sublinear_tf=True)
        classifier: Classifier = make_pipeline(vectorizer, LogisticRegression(solver="liblinear"))
        return classifier

    return cross_validated_auc(rows, texts, fresh, confidence, seed)


def format_auc(texts: Texts, confidence: float, seed: int = 0) -> Estimate:
    """AUC of logistic regression on length and format, without any word."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = np.array([format_features(row) for row in texts.answers])

    def fresh() -> Classifier:
        classifier: Classifier = make_pipeline(
            StandardScaler(), LogisticRegression(solver="liblinear")
        )
        return classifier

    return cross_validated_auc(rows, texts, fresh, confidence, seed)


def format_features(row: Response) -> list[float]:
    """Counts, shares and the finish of an answer; nothing that says which words it holds."""
    text, found = row.response, words(row.response)
    characters = max(len(text), 1)
    return [
        float(len(text)),
        float(row.tokens),
        float(len(found)),
        float(sentences(text)),
        sum(map(len, found)) / max(len(found), 1),
        sum(not c.isalnum() and not c.isspace() for c in text) / characters,
        sum(c.isupper() for c in text) / characters,
        sum(c.isdigit() for c in text) / characters,
        float(text.count("\n")),
        float(list_markers(text)),
        float(row.finish == "length"),
    ]


def cross_validated_auc(
    rows: NDArray[np.generic],
    texts: Texts,
    fresh: Callable[[], Classifier],
    confidence: float,
    seed: int,
) -> Estimate:
    """AUC over prompt-wise folds, each with a classifier that never saw the fold's prompts."""
    count = len(np.unique(texts.prompts))
    if count < FEWEST_PROMPTS:
        return Estimate(
            value=None, reason=f"{count} prompts, and the AUC needs at least {FEWEST_PROMPTS}"
        )
    folds = prompt_folds(texts.prompts, FOLDS, seed)
    scores = np.empty(len(rows))
    for fold in range(FOLDS):
        held = folds == fold
        classifier = fresh()
        classifier.fit(rows[~held], texts.labels[~held])
        scores[held] = classifier.decision_function(rows[held])
    return grouped_auc(scores, texts.labels, texts.prompts, folds, confidence)


def prompt_folds(prompts: Integers, folds: int, seed: int) -> Integers:
    """The fold of every row: all rows of one prompt in one fold, folds of like size."""
    distinct, position = np.unique(prompts, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(distinct))
    of_row: Integers = (order % folds)[position]
    return of_row


def grouped_auc(
    scores: Floats, labels: Integers, groups: Integers, folds: Integers, confidence: float
) -> Estimate:
    """Mean AUC over folds with an interval that takes groups as clusters.

    Answers are compared within folds alone, since scores of different classifiers have no common
    scale. The variance is that of DeLong, DeLong and Clarke-Pearson (1988) with its components
    summed over clusters (Obuchowski 1997) and over folds (LeDell, Petersen and van der Laan 2015);
    the ends are taken on the logit scale. Every fold needs both labels.
    """
    distinct = np.unique(groups)
    value, influence = 0.0, np.zeros(len(distinct))
    for fold in np.unique(folds):
        here = folds == fold
        weight = len(np.unique(groups[here])) / len(distinct)
        positive, negative = here & (labels == 1), here & (labels == 0)
        wins = (np.sign(scores[positive][:, None] - scores[negative][None, :]) + 1) / 2
        area = float(wins.mean())
        value += weight * area
        for rows, component in ((positive, wins.mean(axis=1)), (negative, wins.mean(axis=0))):
            share = weight * (component - area) / len(component)
            np.add.at(influence, np.searchsorted(distinct, groups[rows]), share)
    count = len(distinct)
    variance = count / (count - 1) * float((influence**2).sum())
    low, high = _logit_interval(value, math.sqrt(variance), count, confidence)
    return Estimate(value=value, low=low, high=high)


def _logit_interval(
    value: float, spread: float, groups: int, confidence: float
) -> tuple[float, float]:
    if not 0 < value < 1:
        # Perfect separation shows no variance; the clusters still bound what it can mean.
        return wilson(round(value) * groups, groups, confidence)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * spread / (value * (1 - value))
    centre = math.log(value / (1 - value))
    low, high = (1 / (1 + math.exp(-end)) for end in (centre - reach, centre + reach))
    return low, high


def _analyzed(text: str) -> list[str]:
    return words(text) or [""]
