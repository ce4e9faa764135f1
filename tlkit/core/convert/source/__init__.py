"""Load what a SOURCE names: a callable, TorchScript, an exported program, a Hugging Face folder."""
