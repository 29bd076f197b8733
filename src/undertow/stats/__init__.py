"""From counts and measurements to estimates with intervals: NumPy and SciPy, pure.

Knows no files, no models and no words; every formula names its source.
"""
