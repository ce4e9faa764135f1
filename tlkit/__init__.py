"""tlkit: convert, inspect, run and measure models for Apple devices, on a Mac or on Linux."""

__version__ = "0.1.0"
