"""Encode, decode in another process, run the task, leave one record per image."""
