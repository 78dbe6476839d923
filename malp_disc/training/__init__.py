"""Pretraining MaLP and fine-tuning a generator against it."""
