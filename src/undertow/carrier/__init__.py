"""The text between teacher and student: `filter` drops what shows the trait, `audit` looks for it.

Pure functions on answers that are already in memory; no torch, no files, no network.
"""
