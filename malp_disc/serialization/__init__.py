"""Reading and writing files: atomic writes, state dicts, the key."""
