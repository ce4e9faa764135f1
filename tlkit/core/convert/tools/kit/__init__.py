"""What the families of mends are written with: their register, and how a node is read."""
