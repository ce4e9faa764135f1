"""What goes in and out of a model: shapes, images, labels, and the words for them."""
