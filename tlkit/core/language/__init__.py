"""Language models: text to tokens and back, generation, chat, perplexity, embeddings."""
