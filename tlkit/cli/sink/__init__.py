"""All output goes through here: the sink, and the formatting of figures, sizes and tables."""
