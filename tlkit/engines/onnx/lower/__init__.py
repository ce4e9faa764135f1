"""From a lowered MIL function to an ONNX graph: one typed function for each operation."""
