"""Simulated sweeps: how often the protocol, and the paper's recipe, come out wrong or right."""
