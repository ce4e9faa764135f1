"""GGUF's block types written: the blocks that llama.cpp's reference quantizers make, bit for bit."""
