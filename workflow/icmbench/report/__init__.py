"""The report of a run: static pages, figures and images. Importing this takes no time."""
