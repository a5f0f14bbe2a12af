"""Diagnostics of the embedding space during training: what is measured, when, and which values raise an alarm."""
