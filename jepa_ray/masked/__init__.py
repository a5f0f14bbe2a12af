"""Masked encoders, the second recipe, whole: corpus, masking, network, step, trial and probe."""
