"""MLPerf's LoadGen drives an engine: its four scenarios, its verdict and its logs."""
