"""Data sets in the layouts that their authors publish."""
