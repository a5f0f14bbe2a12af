"""A sweep on Ray: its stages, studies, workers and live table. The only package that imports Ray."""
