#!/usr/bin/env bash
# Installs what uv.lock locks, with hashes, and this package. Runs in the working directory with
# CONDA_PREFIX set. The next line is generated (make lock): it gives a new lock a new environment.
# lock sha256 da1597d02256ba86cc8a3eb1922486d27bab01d8b378fd89e9dbd3b38e0b72b2
set -euo pipefail
export UV_COMPILE_BYTECODE=1
python="$CONDA_PREFIX/bin/python"
uv pip install --quiet --no-deps --require-hashes --python "$python" -r envs/requirements.lock
uv pip install --quiet --no-deps --python "$python" --editable .
