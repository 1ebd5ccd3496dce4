"""How far two stages agree, image by image, and the node at which two graphs part: `python -m ResNeSt.compare`."""
