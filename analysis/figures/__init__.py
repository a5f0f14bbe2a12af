"""Figures of a sweep, one module each: a function from a `Sweep` to a `Plot`, the figure together with the table behind it.

Nothing here reads or writes files (`importance` alone opens study.db), and nothing uses Matplotlib's global state.
"""
