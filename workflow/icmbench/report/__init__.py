"""The report: self-contained pages and their figures, built from a results folder."""
