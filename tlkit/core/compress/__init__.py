"""Make packages smaller: quantized, palettized and pruned weights, and the search for the best choice of them."""
