"""What there is to know of a GPU in its first minutes: `python -m benchmarks.gpu --out DIR`. One part per module."""
