"""Stage 2: checkpoint -> ONNX. `--help` lists the options; ResNeSt.export does the work."""

from ResNeSt.__main__ import start
from ResNeSt.common.errors import run

if __name__ == "__main__":
    run(lambda: start("export"))
