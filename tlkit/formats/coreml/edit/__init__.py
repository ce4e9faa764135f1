"""Edits of a Core ML model's message."""
