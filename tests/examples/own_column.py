"""A column of one's own: how many of the wrong labels have been learnt, and when half of them were.

python own_column.py STORE_OR_EXPORT
"""

import sys

from analysis import load, surfaces

study = load.add_column(
    load.open_study(sys.argv[1]),
    "learnt_wrong",
    ["train_error_flipped"],
    lambda train_error_flipped: 1 - train_error_flipped,
    unit="fraction",
    meaning="flipped images that are given the wrong label they were trained on",
)

learnt = surfaces.over_epochs(study, "learnt_wrong", label_noise=0.2)
mean = learnt.mean("seed")
half = (mean >= 0.5).idxmax("epoch").where(mean.max("epoch") >= 0.5)

source = half["source_task"].values[0]
print(f"first epoch at which half of the wrong labels are learnt, mean over seeds, from {source},")
print("nothing frozen")
print(half.sel(frozen=0, source_task=source).squeeze(drop=True).to_pandas().to_string())
