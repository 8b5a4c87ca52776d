"""What the reduced studies found: their rows, and the verdicts of the code that they were registered with.

Of each study, `<study>.parquet` is what `study export` made of its store, `<study>.verdicts.csv` the
verdicts of the code that decided when it was registered. No images.
`reduced.bias_variance.parquet` has bias, variance and disagreement over the seeds at the last evaluation
(`surfaces.bias_variance_surfaces`).

    study             registered (UTC)      digest          Runs
    reduced           2026-11-25 04:23:33   946660295e48    960
    reduced_noise     2026-11-25 04:23:42   512e8709fe01    650
    reduced_sources   2026-11-25 04:23:47   189cab073b84    100
    reduced_controls  2026-11-25 04:23:52   df94e5f11d53    225
    reduced_rates     2026-11-25 04:23:58   833f45d9f376    165
    reduced_vit       2026-11-28 16:50:12   870118dcfc74    120
    reduced_densenet  2026-11-28 17:33:46   675f82791b14     80

Each was registered before its first row, and its verdicts were confirmatory by that code. The files of
the last two hold their registrations. Those of the first five lay in the store of the studies and are
lost with it: an export of that time did not hold them. What is left of them is this table, noted three
hours after; so a report on these five says that it does not know. The verdicts of all seven are those of
RULES 1: `tests/analysis/test_results.py` recomputes them. If RULES is raised, a report on the last two
says exploratory.

`python -m analysis.results` makes the README's section and `reduced.svg` of these files.
"""
