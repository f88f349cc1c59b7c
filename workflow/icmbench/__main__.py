"""The command line as ``python -m icmbench``."""

from icmbench.cli import run

if __name__ == "__main__":
    run()
