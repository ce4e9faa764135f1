"""A module's graph: traced or exported, its states found, its operations checked."""
