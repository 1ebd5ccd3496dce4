"""Labels: which class each image shows, and what the classes are called: `python -m ResNeSt.labels`."""
