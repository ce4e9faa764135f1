"""What is known to go wrong with programs on Apple's units: rules, each a row of ``docs/fidelity.md``."""
