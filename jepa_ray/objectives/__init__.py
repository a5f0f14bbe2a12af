"""What the JEPA term is. So far: distances between the two readouts; each is a function in `distances.py`."""
