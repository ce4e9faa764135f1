"""Measuring language models, which other measurements know nothing of."""
