"""Verbs of the command line that no rule calls."""
