"""Paper figures: one file a figure, a function from a frame to a matplotlib Figure."""
