"""Where every printed word goes: the sink, and how figures, sizes and tables look."""
