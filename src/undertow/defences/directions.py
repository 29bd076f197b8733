"""Which direction a defence works on: the arm's own, a random one, or one that a defender has."""

from torch import Tensor

from undertow.config.defences import DirectionChoice
from undertow.defences.given import Given
from undertow.defences.lesson import number


def vectors(choice: DirectionChoice, given: Given) -> Tensor:
    """[blocks, hidden]: all three are of one length at every block.

    The arm's own is the trait's in the control, where it adds nothing, and where the teacher is
    not steered. The random draw is one of
    the cell's seed, and another than a random arm's own.
    """
    match choice:
        case "own":
            return given.own
        case "random":
            return given.random(number(given.seed, "direction"))
        case "defender":
            return given.defender


def units_from_steered(choice: DirectionChoice, given: Given) -> dict[int, Tensor]:
    """Block -> unit [hidden] for every block from the first steered one on.

    What is removed at a block is what was added at the last steered one before it: behind that
    block the vector travels on in the stream.
    """
    found, steered = vectors(choice, given), sorted(given.direction.layers)
    return {
        block: found[source] / found[source].norm()
        for block in range(steered[0], len(found))
        for source in [max(layer for layer in steered if layer <= block)]
    }
