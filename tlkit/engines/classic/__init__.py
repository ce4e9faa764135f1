"""Core ML's models that are not networks: trees, linear and kernel models, neighbours, and feature engineering."""
