"""Rates of the published studies (docs/results), to plan with before anything has run here."""

# By trait: the first model of docs/results/small and docs/results/small-refusal at strength 1
# and -1, by rate; shares of answers, and tau.
PUBLISHED = {
    "pessimism": {"base": 0.11, "teacher": 0.23, "control": 0.103333, "tau": 1.11111},
    "refusal": {"base": 0.44, "teacher": 0.79, "control": 0.456667, "tau": 0.733333},
}


def published(trait: str) -> dict[str, float]:
    """Rates and tau of one study of this trait, which belong together; {} where there is none."""
    return dict(PUBLISHED.get(trait, {}))
