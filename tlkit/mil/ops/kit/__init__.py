"""Shared by MIL's operations: the registry, the specification, common arithmetic."""
