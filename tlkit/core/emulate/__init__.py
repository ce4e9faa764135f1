"""Running models by the arithmetic of Apple's units: which profile, and what the answer rests on."""
