"""What makes weights a model that llama.cpp loads: hyperparameters, tokenizer, and values in its order."""
