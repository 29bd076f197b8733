"""Strings alone: phrase rules, text statistics, and what untrusted text must not do."""
