"""PyTorch's files, read without unpickling, and written."""
