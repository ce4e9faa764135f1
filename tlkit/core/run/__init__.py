"""Run one inference, and inspect its intermediate values."""
