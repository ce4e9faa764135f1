"""Data sets of ``tlkit run``: many samples read one after another, and their outputs written as they come."""
