#!/usr/bin/env bash
# Installs what uv.lock locks, with hashes, and this package. Runs in the working directory with
# CONDA_PREFIX set. The next line is generated (make lock): it gives a new lock a new environment.
# lock sha256 ae5cf97ac0675a3735820fa086144dc5f0b797c483ca28008c9495d5afbf555a
set -euo pipefail
export UV_COMPILE_BYTECODE=1
python="$CONDA_PREFIX/bin/python"
uv pip install --quiet --no-deps --require-hashes --python "$python" -r envs/requirements.lock
uv pip install --quiet --no-deps --python "$python" --editable .
