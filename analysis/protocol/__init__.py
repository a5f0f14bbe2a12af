"""From the tables of a sweep to its verdicts: which runs count, which arms are compared, at which equal cost, and what follows."""
