"""What MIL's operations are made with: the registry, the specification, shared arithmetic."""
