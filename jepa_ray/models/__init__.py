"""Networks: the table of families, loading, adapters, predictor tokens, packed attention and the built-in tiny bases."""
