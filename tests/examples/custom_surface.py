"""What would stopping at the best epoch have saved? A surface of one's own: one number from each Run.

python custom_surface.py STORE_OR_EXPORT
"""

import sys

from analysis import load, surfaces

study = load.open_study(sys.argv[1])

saved = surfaces.computed_surface(
    study,
    "saved_by_stopping",
    ["test_error"],
    lambda test_error: test_error[-1] - test_error.min(),
    unit="fraction",
)
noise = saved["label_noise"].values.max()
over = surfaces.over_seeds(saved.sel(label_noise=noise))
mean = over["mean"].mean(["source_task", "source_size"]).squeeze(drop=True)

print(f"test error at the end minus the lowest, label noise {noise:g}, mean over seeds and sources")
print(mean.to_pandas().round(3).to_string())
