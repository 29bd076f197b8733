"""A study on disk: layout, records, traits, presets. Where measuring and concluding meet.

`sources` finds a file by its SHA-256. Knows neither torch nor MLflow.
"""
