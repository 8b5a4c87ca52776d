"""Draw labelled arrays and tables on given Axes."""
