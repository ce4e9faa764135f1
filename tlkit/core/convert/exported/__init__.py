"""A program as another tool takes it: what it is exported of, and whether what is made agrees."""
