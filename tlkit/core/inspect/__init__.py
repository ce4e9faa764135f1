"""Describe a file or folder without running it."""
