#!/usr/bin/env bash
# Installs what uv.lock locks, with hashes, and a link to this checkout's package. Snakemake runs it in
# the repository's root with CONDA_PREFIX set, once per environment: it names environments by this
# text. The next line is generated (make lock), so that a new lock makes a new environment.
# lock sha256 7867b675019bb2d1cf388c6d7bf5441b5323f078ea8b30642d846e6bcf6f4ea3
set -euo pipefail
unset PYTHONPATH
export PYTHONNOUSERSITE=1 UV_COMPILE_BYTECODE=1
install=("$CONDA_PREFIX/bin/uv" pip install --quiet --no-deps --python "$CONDA_PREFIX/bin/python")
"${install[@]}" --require-hashes -r envs/requirements.lock
"${install[@]}" --editable .

# Sourced by every job, when it activates the environment.
mkdir -p "$CONDA_PREFIX/etc/conda/activate.d"
cat > "$CONDA_PREFIX/etc/conda/activate.d/icmbench.sh" <<'END'
# In front of all: where `base` is active, conda puts an environment in its place in PATH, and that
# may be behind the virtual environment that Snakemake runs from.
export PATH="$CONDA_PREFIX/bin:$PATH"
# The code of the checkout that runs, also where checkouts share the environment (--conda-prefix).
export PYTHONPATH="$PWD/workflow${PYTHONPATH:+:$PYTHONPATH}"
# No packages of the user's own beside the locked ones.
export PYTHONNOUSERSITE=1
END
