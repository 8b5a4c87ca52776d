"""What a study wants, what is there, what is wrong, and what it will cost."""
