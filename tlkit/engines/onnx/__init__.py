"""MIL functions as ONNX graphs, and the engine that hands them to a runtime of ONNX."""
