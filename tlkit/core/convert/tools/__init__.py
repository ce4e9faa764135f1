"""coremltools: the call that builds a package, its targets, and the torch ops that tlkit adds to it."""
