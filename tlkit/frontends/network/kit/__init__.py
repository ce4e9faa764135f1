"""What layers are written with: values, the program being made, weights, the registry."""
