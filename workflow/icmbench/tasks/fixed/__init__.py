"""Networks that are used as they are: published ones by name, ONNX files, classes of one's own."""
