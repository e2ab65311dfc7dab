"""Trained networks in files that other programs read: ONNX, torch.export, safetensors, an HTML page."""
