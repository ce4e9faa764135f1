"""Compare arrays, the tensors of two files, and two packages."""
