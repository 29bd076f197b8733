"""In groups of how many subjects share steps, whatever they are and whoever computes them."""

WORTH = 4  # subjects of a group: with fewer, steps of small models take as long for less


def evenly(subjects: int, most: int) -> int:
    """The size of groups of at most `most` that leaves the fewest places empty."""
    groups = -(-subjects // most)
    return -(-subjects // groups)


def shares(subjects: int) -> int:
    """Among how many devices so many subjects can be dealt out, each share still worth a group."""
    return 4 if subjects >= 4 * WORTH else 2 if subjects >= 2 * WORTH else 1


def dealt(subjects: int, most: int) -> int:
    """The size of groups of at most `most` whose number several devices can divide among them.

    It goes by the subjects alone: were it to go by the devices, bytes would depend on them.
    """
    parts, needed = shares(subjects), -(-subjects // most)
    groups = -(-needed // parts) * parts
    return -(-subjects // groups)
