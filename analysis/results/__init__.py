"""Exports and verdicts of the bundled studies, and README.md and reduced.svg, which are made from them."""
