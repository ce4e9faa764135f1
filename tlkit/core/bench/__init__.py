"""Benchmarking: settings, child processes, samples, and what can be concluded from them."""
