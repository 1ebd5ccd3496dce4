"""Stage 2: checkpoint -> ONNX. `--help` lists the options; ResNeSt.export does the work."""

from ResNeSt.commands.export import main
from ResNeSt.common.errors import run

if __name__ == "__main__":
    run(main)
