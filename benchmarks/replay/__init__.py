"""A finished grid as a simulated machine: searches run on it in simulated time, given by their counted FLOPs; nothing is trained."""
