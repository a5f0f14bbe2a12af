"""jepa_ray: does a joint-embedding predictive (JEPA) term improve a language model, at which knobs, and how sure are we?"""

__version__ = "0.1.0"
