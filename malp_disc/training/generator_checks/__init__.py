"""Checks of a generator before any long work: its interface, its gradients, and a full examination with a detector."""
