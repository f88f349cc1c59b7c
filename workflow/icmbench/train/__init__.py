"""The trainer of all studies. Reading order: loop, setup, step; then what they call."""

# Part of fingerprints. Increment it when a code change changes the result for equal settings.
TRAINING_VERSION = 6
