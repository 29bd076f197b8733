"""Everything that speaks to an OpenAI-compatible endpoint: requests, pace, prices, rubrics.

`cache` keeps the replies that have been paid for.
"""
