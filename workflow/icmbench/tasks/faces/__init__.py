"""Face attributes and face parsing, on pictures or on latents."""
