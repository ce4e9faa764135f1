"""One inference, and a look inside it."""
