"""Figures of merit: Bjøntegaard deltas, average precision, image quality."""
