"""What a checkpoint must fulfil before any number trained on it can be trusted: `python -m jepa_ray.conformance PATH`."""
