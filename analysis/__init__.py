"""Commands that read finished sweeps, one per question. Of the package, they import `jepa_ray.results` only."""
