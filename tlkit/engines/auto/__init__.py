"""The engine that picks another one: the fastest that is installed and faithful."""
