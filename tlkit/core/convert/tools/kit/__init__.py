"""Shared by the families of mends: their registry, and how to read a node."""
