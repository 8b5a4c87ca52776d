"""What a study costs, measured against what a user would write: `python -m tests.benchmarks`."""
