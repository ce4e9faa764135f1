"""Lower MIL functions to PyTorch graphs."""
