"""The only readers of a results folder: its tables, the runs that count as confirmation, the declaration made before the sweep."""
