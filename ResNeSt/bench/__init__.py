"""Stage 4, the table: accuracy and speed of the compiled models, a row per batch size."""
