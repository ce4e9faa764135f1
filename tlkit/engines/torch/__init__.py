"""Lowered programs run by PyTorch."""
