"""Checks that a checkpoint must pass before results trained on it can be trusted: `python -m jepa_ray.conformance PATH`."""
