"""The operations of a model, listed and drawn."""
