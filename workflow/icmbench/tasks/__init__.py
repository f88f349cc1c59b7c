"""Tasks: what a machine or a person does with the decoded image, or with decoded features.

``entries.py`` registers them with their parameters and imports no network library.
"""
