"""Program transformations: each takes a program and returns another."""
