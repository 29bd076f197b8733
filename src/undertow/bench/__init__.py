"""How fast generation, training and judging are, beside what the machine could do.

Exact shapes of the studied models with random weights: speed does not depend on their values.
Each case is one JSON line; bounds come from ceilings measured in the same run.
"""
