"""Speed beside named peers, in one run: `python -m benchmarks.inference`, `python -m benchmarks.preprocessing`.

Contenders take turns, so that a machine whose speed drifts drifts for all of them; medians of the rounds are reported.
Results are committed as CSV files that say in their names where they were measured.
"""
