"""Compute surfaces, verdicts and figures from a store or from one exported Parquet file.

Must never write to a store, and must stay importable without torch and ray.
"""
