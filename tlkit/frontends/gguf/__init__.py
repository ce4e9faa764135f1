"""Language models of GGUF files and Hugging Face folders as MIL functions."""
