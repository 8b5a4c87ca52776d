"""From a store, or one exported Parquet file, to surfaces, verdicts and pictures.

Reads and never writes a store; imports neither torch nor ray.
"""
