# The pipeline: stages, flows, and the MLflow and Prefect servers of compose.yaml. From the root of the repository:
#
#   docker build -f docker/train.Dockerfile -t qartsr-train:0.1.0 .
#
# A mirror of the package index: --build-arg PIP_INDEX_URL=... --build-arg UV_DEFAULT_INDEX=... (both end up in the
# image's history: no credentials in them).
# BASE_IMAGE: any Debian-like image with python3, its venv and pip packages and CA certificates.
# UV_FIND_LINKS: a folder of wheels, mounted while building.
ARG BASE_IMAGE=python:3.12.12-slim-bookworm
FROM ${BASE_IMAGE}

# git: for lanes that clone. gcc: Triton and TorchDynamo compile. libgl1 and libglib2.0-0: OpenCV, which pyiqa imports.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git gcc libc6-dev libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
ARG UV_FIND_LINKS
# A virtual environment, for Debian's own Python takes no packages (PEP 668). Bytecode is made here: who runs the image
# may not write it, and a start that compiles takes up to twice the processor time.
ENV PYTHONUNBUFFERED=1 \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1 \
    VIRTUAL_ENV=/opt/venv \
    PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    DVC_NO_ANALYTICS=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    DO_NOT_TRACK=1

# The folders that compose.yaml mounts volumes on: a new volume takes over their owner.
RUN python3 -m venv /opt/venv && useradd --create-home --uid 1000 qartsr \
    && install --directory --owner=qartsr --group=qartsr \
        /app /app/build /app/metrics /app/work /app/.dvc /app/.dvc/cache

WORKDIR /app

# Dependencies first: this layer lasts until pyproject.toml or constraints.txt change. PyTorch brings CUDA.
COPY pyproject.toml constraints.txt ./
RUN pip install --no-cache-dir uv -c constraints.txt \
    && uv pip install --no-cache -r pyproject.toml --extra train --extra pipeline --extra postgres \
        -c constraints.txt

# Editable, so that the code DVC hashes is the code that runs.
COPY --chown=qartsr:qartsr README.md LICENSE dvc.yaml params.yaml prefect.yaml .dvcignore ./
COPY --chown=qartsr:qartsr .dvc/config .dvc/config
COPY --chown=qartsr:qartsr .dvc/plots .dvc/plots
COPY --chown=qartsr:qartsr configs configs
COPY --chown=qartsr:qartsr experiments/params.yaml experiments/params.yaml
COPY --chown=qartsr:qartsr deploy/automations.yaml deploy/automations.yaml
COPY --chown=qartsr:qartsr weights weights
COPY --chown=qartsr:qartsr photographs photographs
COPY --chown=qartsr:qartsr qartsr qartsr
COPY --chown=qartsr:qartsr stages stages
COPY --chown=qartsr:qartsr pipelines pipelines
RUN uv pip install --no-cache --no-deps --editable . && install --directory --owner=qartsr /srv/prefect

# The weights of NIQE, where they can be had; without them it is not measured, and the report says so.
ENV HOME=/home/qartsr
USER 1000
RUN qartsr fetch-metric-weights niqe || true

# DVC refuses a folder with .dvc and without .git until it is told that there is none.
RUN dvc config --local core.no_scm true

CMD ["python", "-m", "pipelines.reproduce"]
