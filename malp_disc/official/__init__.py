"""The authors' own networks, for their published checkpoints."""
