"""Charts and image grids, independent of the user's matplotlib settings."""
