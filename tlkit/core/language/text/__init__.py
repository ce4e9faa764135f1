"""Text to tokens and back: vocabularies by the ``tokenizers`` library, and chat templates."""
