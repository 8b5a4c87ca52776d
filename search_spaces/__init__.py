"""One file per question: each holds RUNS, a plain list of Runs, and TASKS where it defines its own."""
