"""Golden vectors: what the authors' own networks gave on weights drawn from their keys' names. ``python -m tests.golden DIR``."""
