"""What happens once per sweep, before any trial: data and checkpoints made ready, tiny bases trained, costs estimated."""
