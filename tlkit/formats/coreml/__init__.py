"""Core ML models on disk: packages, compiled models, and specifications of every version."""
