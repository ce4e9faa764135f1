"""Espresso: what Core ML's compiler makes of a neural network inside an ``.mlmodelc``."""
