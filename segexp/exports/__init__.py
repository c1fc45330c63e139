"""Exports of finished runs for other programs: safetensors, ONNX, MONAI bundles; each is checked after it was written."""
