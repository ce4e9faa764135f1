"""A loaded model: what goes in, what runs it, what comes out."""
