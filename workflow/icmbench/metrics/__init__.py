"""Figures of merit: Bjøntegaard deltas, average precision, picture quality."""
