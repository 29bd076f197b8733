"""Everything that speaks to an OpenAI-compatible endpoint: requests, cache, pace, prices."""
