"""Work done once per sweep, before any trial: prepare data and checkpoints, train tiny bases, estimate costs."""
