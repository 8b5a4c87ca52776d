"""Where images come from: files and data sets of each kind, listed and read, but not yet decoded."""
