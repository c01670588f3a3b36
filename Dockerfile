# syntax=docker/dockerfile:1
# One image for every role: Ray head and worker, submitter, server, watch, MLflow. Both kinds from one file:
#   docker build -t registry.example.com/rehone:0.1.0-cpu .
#   docker build -t registry.example.com/rehone:0.1.0-cuda --build-arg DEVICE=cuda .
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
ARG DEVICE=cpu
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008  # Debian keeps one version of each in a release
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/rehone
ENV PATH=/opt/rehone/.venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements.lock ./
# DeepSpeed builds against an installed torch; the lock is complete, hence --no-deps. PyPI's own torch is the CUDA build
# and brings CUDA's libraries as packages of its own, which no lock made on a CPU has.
# hadolint ignore=DL3013  # the versions are the lock's
RUN python -m venv .venv \
    && pip install 'setuptools==84.*' 'wheel==0.48.*' 'ninja==1.13.*' 'packaging==26.*' \
    && torch="$(grep '^torch==' requirements.lock)" \
    && if [ "$DEVICE" = cuda ]; then pip install "$torch"; \
       else pip install "$torch" --index-url https://download.pytorch.org/whl/cpu; fi \
    && grep -v '^torch==' requirements.lock > rest.lock \
    && pip install --no-deps --no-build-isolation -r rest.lock \
    && rm rest.lock
COPY pyproject.toml README.md LICENSE rehone.py ./
COPY cluster cluster
COPY jobs jobs
COPY serve serve
COPY monitoring monitoring
COPY examples examples
RUN pip install --no-deps --no-build-isolation --editable . \
    && python -m compileall -q cluster jobs serve monitoring rehone.py

FROM ${PYTHON}
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# wget is what the KubeRay operator's probes call.
# hadolint ignore=DL3008  # Debian keeps one version of each in a release
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 procps tini wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home rehone \
    && install --directory --owner=rehone /var/spool/rehone
COPY --from=build /opt/rehone /opt/rehone
ENV PATH=/opt/rehone/.venv/bin:$PATH PYTHONPATH=/opt/rehone PYTHONUNBUFFERED=1
WORKDIR /home/rehone
USER 10001:10001
ENTRYPOINT ["tini", "--"]
CMD ["rehone", "--help"]
