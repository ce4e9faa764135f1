"""Core ML models on disk: packages, compiled bundles, specifications of every age."""
