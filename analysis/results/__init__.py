"""Exports and verdicts of the bundled studies, and README.md and reduced.svg, which are made from them.

`<study>.verdicts.csv` has the verdicts by RULES 1, `<study>.verdicts.2.csv` those by RULES 2.
"""
