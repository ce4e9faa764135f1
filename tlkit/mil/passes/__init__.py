"""Changes of a program: each takes one and gives another."""
