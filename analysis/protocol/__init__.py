"""From the tables of a sweep to rulings: which runs count, which arms are compared, at equal what, and what follows."""
