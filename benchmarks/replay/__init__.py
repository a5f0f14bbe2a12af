"""A finished grid as a simulated machine: searches run on it in the time that their counted FLOPs take, and nothing is trained."""
