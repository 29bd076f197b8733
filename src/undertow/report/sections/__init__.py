"""A section of the report each."""
