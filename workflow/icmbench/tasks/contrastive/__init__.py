"""Self-supervised training of the codec's backbone (tang2025)."""
