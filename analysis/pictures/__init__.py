"""What the pictures are put together from: marks, maps, panels, and which ones a study has."""
