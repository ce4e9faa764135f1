"""Compiled neural networks (Espresso): their layers as those of the network that they were compiled from."""
