"""Whatever a file holds becomes a MIL program here, so that every engine and every command runs it."""
