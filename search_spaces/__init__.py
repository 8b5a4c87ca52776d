"""One file per question: each holds RUNS, a plain list of Runs, and TASKS if it defines its own."""
