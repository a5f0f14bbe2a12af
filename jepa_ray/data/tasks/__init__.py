"""One module per task: what its rows look like at their source, and a generator of sample rows."""
