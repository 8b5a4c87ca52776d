"""A table for a paper: final test error in per cent, mean ± standard error over seeds, as LaTeX.

python paper_table.py STORE_OR_EXPORT
"""

import sys

from analysis import load, surfaces

study = load.open_study(sys.argv[1])

error = 100 * surfaces.at_epoch(study, "test_error", label_noise=0.2)
over = surfaces.over_seeds(error.isel(source_size=-1)).squeeze()
mean, spread = over["mean"].to_series(), over["standard_error"].to_series()
table = (mean.map("{:.1f}".format) + " ± " + spread.map("{:.1f}".format)).unstack("size")

caption = f"Test error (\\%), mean ± standard error over {int(over['count'].min())} seeds."
print(table.to_latex(caption=caption))
