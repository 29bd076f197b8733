"""Undertow measures what a student model inherits from its teacher through benign data."""

__version__ = "0.1.0"
