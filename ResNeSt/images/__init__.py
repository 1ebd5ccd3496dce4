"""Stage 1, images -> tensors: resnest_preprocess.py. Recipes, decoding, which files are images."""
