"""Pictures of labelled arrays and tables: they draw on the Axes they are given, and read nothing."""
