# `make smoke` in a container, for any user: see docs/environments.md.
FROM python:3.11-slim-bookworm

# The checkout belongs to root, and git would refuse it to others.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /icmbench

WORKDIR /icmbench
COPY . .
# What is written at run time: any user may, as in /tmp.
RUN PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 make install \
    && .venv/bin/python -m compileall -q workflow \
    && mkdir -p .snakemake results \
    && chmod a+rwxt .snakemake data results

# Snakemake asks for a user's name and for a cache folder: `docker run --user` may have neither.
ENV LOGNAME=icmbench \
    XDG_CACHE_HOME=/tmp/icmbench-cache

USER 1000:1000
CMD ["make", "smoke"]
