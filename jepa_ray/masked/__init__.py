"""The complete second recipe, masked encoders: corpus, masking, network, step, trial and probe."""
