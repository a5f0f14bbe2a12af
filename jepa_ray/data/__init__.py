"""Examples, their splits, the views a model sees of them, and how token sequences share rows."""
