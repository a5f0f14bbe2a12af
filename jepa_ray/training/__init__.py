"""One trial, from data through packed batches and steps to evaluation. Independent of Ray; runs wherever PyTorch runs."""
