"""How often a classifier is right on labelled samples."""
