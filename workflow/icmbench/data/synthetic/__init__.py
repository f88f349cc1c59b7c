"""Generated data sets: scenes of shapes, and faces."""
