"""From counts and measurements to estimates with intervals: NumPy and SciPy, pure.

`transfer` is tau and its interval, `dose` the form and its threshold (fitted in `forms`),
`agreement` the kappas, `power` what a study can show. Knows no files, no models and no words;
every formula names its source.
"""
