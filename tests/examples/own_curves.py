"""Curves that somebody else measured, as a CSV: where is double descent, along the epochs and the widths?

python own_curves.py
"""

import io
import math
import random

import pandas as pd

from analysis import descent, load, surfaces

# Stands in for a published file. Here an error falls to 0.2 and has a peak where the width is near 12.
random.seed(0)
lines = ["width,seed,epoch,test error (%),train error (%)"]
for width in (2, 4, 8, 12, 20, 40, 80):
    near = math.exp(-((math.log(width / 12) / 0.5) ** 2))
    for seed in range(4):
        for epoch in range(100):
            late = math.exp(-((math.log((epoch + 1) / 30) / 0.5) ** 2))
            test = (
                20
                + 40 / (epoch + 1)
                + 20 / width
                + 8 * near
                + 6 * near * late
                + random.gauss(0, 0.3)
            )
            lines.append(f"{width},{seed},{epoch},{test:.2f},{60 / (1 + epoch * width / 100):.2f}")
csv = io.StringIO("\n".join(lines))

frame = pd.read_csv(csv)
frame[["test", "train"]] = frame[["test error (%)", "train error (%)"]] / 100
names = {"test_error": "test", "train_error": "train"}
names |= {name: name for name in ("width", "seed", "epoch")}
study = load.from_dataframe(frame, columns=names, constants={"task": "MNIST"}, first_epoch=0)

curves = surfaces.over_epochs(study, arm="scratch", squeeze=True).transpose(
    "width", "seed", "epoch"
)
for width in curves["width"].values:
    found = descent.judge_epochs(curves["epoch"].values, curves.sel(width=width).values)
    print(f"width {width:2}, over the epochs: {found.wording}, peak at epoch {found.peak:.0f}")
final = curves.isel(epoch=-1)
found = descent.judge(final["width"].values, final.values.T, axis="width")
print(f"after the last epoch, over the widths: {found.status}, peak at width {found.peak:.0f}")
