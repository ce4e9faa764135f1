"""Results as people, pages and other programs read them."""
