"""This computer and how to behave on it: staged writes, signals, quiet libraries, memory, power."""
