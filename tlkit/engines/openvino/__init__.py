"""ONNX graphs run by OpenVINO, on the CPU."""
