"""Tokens out, as fast as the device allows. Knows no teacher and no file."""
