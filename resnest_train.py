"""Trains a ResNeSt, or fine-tunes one; alone, or in processes that torchrun starts. ResNeSt.training does the work."""

from ResNeSt.__main__ import start
from ResNeSt.common.errors import run

if __name__ == "__main__":
    run(lambda: start("train"))
