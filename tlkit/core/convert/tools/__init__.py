"""coremltools: the call that builds a package, its targets, and the torch ops it is taught."""
