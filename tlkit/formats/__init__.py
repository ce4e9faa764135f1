"""One folder or module per file format: recognise, read, describe, write."""
