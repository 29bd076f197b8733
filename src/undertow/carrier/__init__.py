"""The text between teacher and student: what is kept of it, and whether the trait shows in it.

Pure functions on answers that are already in memory; no torch, no files, no network.
"""
