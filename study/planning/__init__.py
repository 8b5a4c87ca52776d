"""Find what a study needs, what exists, what is wrong, and what it will cost."""
