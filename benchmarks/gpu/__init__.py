"""Everything worth knowing about a GPU in its first minutes: `python -m benchmarks.gpu --out DIR`. One part per module."""
