"""Conversion: sources to packages, packages to packages, packages to other formats."""
