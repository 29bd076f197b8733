"""What the intervals allow to be said, in words: a sentence on each arm, dose, pair and audit.

`arms` says whether a trait arm stands clear of its controls; `numbers` holds the readouts' names
and units.
"""
