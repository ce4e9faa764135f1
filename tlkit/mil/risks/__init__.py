"""Known problems of programs on Apple's compute units: rules, each for a row of ``docs/fidelity.md``."""
