"""One module per task: the format of its rows at the source, and a generator of sample examples."""
