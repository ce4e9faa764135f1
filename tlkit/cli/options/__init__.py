"""The options of the command line, each defined once."""
