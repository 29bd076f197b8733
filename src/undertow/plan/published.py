"""Rates of the published studies (docs/results), to plan with before anything has run here."""

# By trait: the first model of docs/results/main and docs/results/refusal at strength 1
# and -1, by rate; shares of answers, and tau.
PUBLISHED = {
    "pessimism": {"base": 0.08, "teacher": 0.24, "control": 0.083333, "tau": 1.17917},
    "refusal": {"base": 0.45, "teacher": 0.79, "control": 0.464167, "tau": 0.817157},
}


def published(trait: str) -> dict[str, float]:
    """Rates and tau of one study of this trait, which belong together; {} where there is none."""
    return dict(PUBLISHED.get(trait, {}))
