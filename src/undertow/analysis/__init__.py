"""From a study's records to every number that people read. No words, no torch."""
