"""Speed and cost, each as a ratio measured in one run. `python -m benchmarks.<name> [--json]` exits 1 if a figure misses its limit."""
