"""Which networks can be named, how many layers each has, and what their width counts.

A table of plain values, so that a grid can be checked without importing torch; `models` builds what
stands here. A network that is not in the table is named "timm/<name>" and asked of timm itself.
"""
