"""ONNX graphs run by ONNX Runtime, on the CPU."""
