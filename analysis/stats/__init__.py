"""Statistics of paired comparisons: tests, intervals over seeds x examples, looks of a race, bootstraps. Arrays in, numbers out."""
