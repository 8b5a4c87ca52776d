"""Ray: its cluster, its Tune, what its loop calls, and what watches trainings through it.

The only folder that imports Ray; the driver loads it where a study is not `--inline`. `tuner` begins,
`trial` is what runs in a worker, `searcher` is what Tune's loop in the driver calls.
"""
