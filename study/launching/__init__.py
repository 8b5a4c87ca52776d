"""Train the Runs of a plan: driver, lease, queue, attempts at Runs, and Ray."""
