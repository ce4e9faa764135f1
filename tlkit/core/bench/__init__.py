"""Measuring: settings, child processes, samples, and what may be said of them."""
