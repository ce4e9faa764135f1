"""GGUF files: header, block types, names, read and written."""
