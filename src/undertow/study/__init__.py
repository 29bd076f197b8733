"""A study on disk: layout, records, traits, sources, presets. Where measuring and concluding meet.

Knows neither torch nor MLflow.
"""
