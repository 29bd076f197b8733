"""From a study's records to every number that people read: the Summary, and a module for each
part of it. No words, no torch.
"""
