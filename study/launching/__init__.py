"""From a plan to every Run's rows: the driver, its lease, its queue, one try at one Run, and Ray."""
