"""Command lines of the scripts beside this package: they parse, call the stage, and print."""
