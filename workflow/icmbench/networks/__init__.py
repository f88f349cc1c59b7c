"""Network pieces that codecs and tasks share."""
