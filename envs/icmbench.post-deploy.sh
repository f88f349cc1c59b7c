#!/usr/bin/env bash
# Installs what uv.lock locks, with hashes, and this package. Runs in the working directory with
# CONDA_PREFIX set. The next line is generated (make lock): it gives a new lock a new environment.
# lock sha256 ef943475f6eb9d9b994b0cca3a66fd2137f0239ff2ee11b061e35145a397d935
set -euo pipefail
export UV_COMPILE_BYTECODE=1
python="$CONDA_PREFIX/bin/python"
uv pip install --quiet --no-deps --require-hashes --python "$python" -r envs/requirements.lock
uv pip install --quiet --no-deps --python "$python" --editable .
