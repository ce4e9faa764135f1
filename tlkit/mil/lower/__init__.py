"""MIL functions to PyTorch graphs."""
