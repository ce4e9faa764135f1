"""A loaded model: its inputs, its engine, its outputs."""
