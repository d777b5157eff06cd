"""Turns a bundle into the forms that other tools load: one ONNX file, and the layouts of model stores."""
