"""Train Runs with Ray; the driver loads this folder unless a study is `--inline`.

No other folder imports Ray. `tuner` starts, `trial` runs in workers, Tune's loop calls `searcher`.
"""
