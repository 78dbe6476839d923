"""Measure a generator: the evaluation set, the feature extractors, the numbers and image strips of every arm."""
