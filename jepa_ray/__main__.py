"""`python -m jepa_ray COMMAND ...`: the same as `jepa-ray COMMAND ...`, also where the console command is not on the PATH."""

from __future__ import annotations

import sys

from jepa_ray.sweep import command

if __name__ == "__main__":
    sys.exit(command())
