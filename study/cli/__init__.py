"""The command line: verbs, options and texts."""
