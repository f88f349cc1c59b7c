"""The report: one self-contained page and its figures, built from a results folder."""
