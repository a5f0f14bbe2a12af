"""Figures of a sweep, one per module: each `plot` function turns a `Sweep` into a `Plot`, a figure and the table behind it.

They neither read nor write files (except `importance`, which opens study.db) and do not use Matplotlib's global state.
"""
