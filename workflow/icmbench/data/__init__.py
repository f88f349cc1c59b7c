"""Data sets: catalogue, fetching, and the images and annotations that tasks read."""
