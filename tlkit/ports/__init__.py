"""The inputs and outputs of a model: their shapes, images and labels, and how users write them."""
