"""The one trainer: what is trained, towards what, and how it survives being killed."""

# Raised when a change makes trainings of the same settings end differently: part of fingerprints.
TRAINING_VERSION = 5
