"""The options of the command line, each spelt once."""
