"""Commands that take many inputs, and run them side by side as a fleet."""
