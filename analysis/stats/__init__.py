"""Statistics of paired comparisons: tests, intervals over seeds x examples, looks at a race, bootstraps. Arrays in, numbers out."""
