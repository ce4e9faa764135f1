"""Where Core ML would run each operation of a program, why, and at what cost: predictions, never measurements."""
