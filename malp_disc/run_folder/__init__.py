"""What a run leaves in its folder: the one contract between training, evaluation and report."""
