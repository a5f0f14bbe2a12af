"""The package's version: read by the build, by `jepa_ray.__version__`, and by every row of the trials table."""

__version__ = "0.1.0"
