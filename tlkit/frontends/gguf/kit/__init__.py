"""What architectures are built of: hyperparameters, weights, rotary positions, caches, attention, feed-forward."""
