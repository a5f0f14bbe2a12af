"""Checks that a checkpoint must pass before results trained on it can be trusted: `python -m jepa_ray.conformance PATH`.

Threads on a CPU wait without spinning. The checks are many short passes, and on a machine with other work each of torch's threads would
burn its share of a core at every barrier: eight times the CPU seconds, measured with two threads. OpenMP reads this when torch is loaded.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
