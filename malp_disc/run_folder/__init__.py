"""The contents of a run's folder: the contract between training, evaluation and report."""
