"""What the kinds of Espresso layers are written with."""
