"""One step of a video's life each."""
