"""What may be said of rounds in which students become teachers."""

from collections.abc import Iterator

from undertow.analysis.summary import ChainArm, RoundOfChain, Summary
from undertow.findings.numbers import READOUTS, readout_title
from undertow.stats.rounds import NEITHER, ONE_LINEAGE, Course, course
from undertow.study.records import ReadoutName
from undertow.texts.numbers import RATIO

WORDS: dict[Course, str] = {
    "grows": "what students take over grows from round to round",
    "decays": "what students take over decays from round to round",
    "neither": f"neither growth nor decay: the step ratio lies within {NEITHER[0]} and "
    f"{NEITHER[1]}",
    "undecided": "the interval leaves open whether it grows or decays",
}


def course_of(chain: ChainArm, readout: ReadoutName) -> Course:
    return course(chain.step(readout), chain.lineages)


def _named(each: RoundOfChain) -> str:
    return f"{each.student} (continued)" if each.continued else each.student


def round_sentences(summary: Summary, model: str) -> Iterator[str]:
    """One per chain, arm that teaches the trait, and readout."""
    for chain in summary.rounds:
        if chain.model != model or chain.direction == "random":
            continue
        for readout in READOUTS:
            step, word = chain.step(readout), course_of(chain, readout)
            said = WORDS[word]
            if word == "undecided" and (step.reason or chain.lineages < 2):
                said = f"undecided: {step.reason or ONE_LINEAGE}"
            taus = ", ".join(RATIO.number(each.by(readout).tau.value) for each in chain.rounds)
            yield (
                f"{' -> '.join(map(_named, chain.rounds))}, {chain.arm}, by "
                f"{readout_title(summary, readout)}: tau by round {taus}; step ratio "
                f"{RATIO.written(step)}: {said}."
            )
