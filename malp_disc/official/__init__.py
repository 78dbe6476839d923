"""The networks of the authors' code, for their published checkpoints."""
