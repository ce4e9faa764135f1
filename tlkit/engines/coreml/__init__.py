"""Apple's own runtime, through coremltools' documented API."""
