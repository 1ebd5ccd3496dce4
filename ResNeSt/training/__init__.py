"""Training by the published recipe: resnest_train.py."""
