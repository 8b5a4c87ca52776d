"""Train Runs with Ray; the driver loads this folder unless a study is `--inline`.

No other folder imports Ray. `tuner` starts Ray Tune, whose loop calls `searcher`; workers run `trial`.
"""
