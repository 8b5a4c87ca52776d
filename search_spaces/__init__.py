"""One file per question: each defines RUNS, a list of Runs, and TASKS if it has tasks of its own."""
