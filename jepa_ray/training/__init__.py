"""The trial itself: data to packed batches to steps to evaluation. Knows nothing of Ray; runs wherever PyTorch does."""
