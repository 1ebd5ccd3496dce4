"""Scripts for other frameworks' Pythons: each writes a checkpoint of a random ResNeSt, and the logits that it gives."""
