"""This computer, and manners on it: staging, signals, silence, memory, power."""
