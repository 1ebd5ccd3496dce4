"""Stage 4, a tensor folder through an engine with ais_bench's flags and files, and the clients that do it."""
