"""Exports and verdicts of the bundled studies, with README.md and reduced.svg generated from them.

`<study>.verdicts.csv` contains verdicts by RULES 1, `<study>.verdicts.2.csv` verdicts by RULES 2.
"""
