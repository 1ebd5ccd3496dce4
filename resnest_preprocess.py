"""Stage 1: images -> binary tensors. `--help` lists the options; ResNeSt.images does the work."""

from ResNeSt.commands.preprocess import main
from ResNeSt.common.errors import run

if __name__ == "__main__":
    run(main)
