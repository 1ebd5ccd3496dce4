"""Speed and memory beside named peers, in one run: `python -m benchmarks --images DIR`.

Contenders take turns, so that a machine whose speed drifts drifts for all of them; medians of the rounds are reported.
Results are CSV files that say in their names where they were measured; docs/speed.md has those in benchmarks/results.
"""
