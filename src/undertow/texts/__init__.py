"""Strings alone: how values and intervals are written, phrase rules, text statistics, tables.

`untrusted` makes a model's text safe to put before a judge or into a page.
"""
