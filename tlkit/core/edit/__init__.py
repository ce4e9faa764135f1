"""Changing a package without converting it again."""
