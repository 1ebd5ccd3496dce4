"""Stage 4, the score: a client's outputs and a label file -> top-1 and top-5. ResNeSt.score does the work."""

from ResNeSt.commands.postprocess import main
from ResNeSt.common.errors import run

if __name__ == "__main__":
    run(main)
