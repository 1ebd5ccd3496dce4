"""Tensor folders: their format, a file an image or packed, and the index beside them."""
