"""Reading finished sweeps: one script per question. Imports `jepa_ray.results` and nothing else of the package."""
