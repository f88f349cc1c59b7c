"""Face attributes and face parsing, on images or on latents."""
