"""Greedy generation and the judging of answers."""
