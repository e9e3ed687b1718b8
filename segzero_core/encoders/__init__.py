"""Image encoders by PyTorch, ONNX Runtime and TensorRT."""
