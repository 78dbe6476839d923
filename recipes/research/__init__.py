"""Studies that back the documentation: ablations, probes, the search for a way of fine-tuning."""
