"""Checks of a generator before any long work: its interface, its gradients, and a full check with a detector."""
