"""What lowerings to ONNX are made of: the graph, the table of lowerings, the rounding to f16."""
