"""Leakage audit of the carrier: can the trait be seen in what the student is trained on?

Pure functions on answers that are already in memory; no torch, no files, no network.
"""
