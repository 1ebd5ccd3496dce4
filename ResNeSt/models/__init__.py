"""The networks: weight cards, checkpoints, and what a model file says of itself: `python -m ResNeSt.models`."""
