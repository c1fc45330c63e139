"""Exports of finished runs for other programs, each checked after it was written: safetensors, ONNX, MONAI bundles."""
