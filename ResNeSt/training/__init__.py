"""Training by the published recipe: `loop.train` does it, resnest_train.py is its command line."""
