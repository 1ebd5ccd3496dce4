"""Stand-in for the Ascend inference client (contract ais_bench); see the README beside this package."""
