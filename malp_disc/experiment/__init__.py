"""Several arms and seeds of one fine-tuning, side by side."""
