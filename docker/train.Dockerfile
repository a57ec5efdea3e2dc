# The pipeline: stages, flows, and the MLflow and Prefect servers of compose.yaml. From the root of the repository:
#
#   docker build -f docker/train.Dockerfile -t qartsr-train:0.1.0 .
#
# A mirror of the package index: --build-arg PIP_INDEX_URL=... --build-arg UV_DEFAULT_INDEX=... (both end up in the
# image's history: no credentials in them).
FROM python:3.12.12-slim-bookworm

# git: for lanes that clone. libgl1 and libglib2.0-0: OpenCV, which pyiqa imports.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
ENV PYTHONUNBUFFERED=1 \
    UV_LINK_MODE=copy \
    DVC_NO_ANALYTICS=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    DO_NOT_TRACK=1

# The folders that compose.yaml mounts volumes on: a new volume takes over their owner.
RUN useradd --create-home --uid 1000 qartsr \
    && install --directory --owner=qartsr --group=qartsr \
        /app /app/build /app/metrics /app/work /app/.dvc /app/.dvc/cache /srv/mlflow /srv/prefect

WORKDIR /app

# Dependencies first: this layer lasts until pyproject.toml or constraints.txt change. PyTorch brings CUDA.
COPY pyproject.toml constraints.txt ./
RUN pip install --no-cache-dir uv -c constraints.txt \
    && uv pip install --system --no-cache -r pyproject.toml --extra train --extra pipeline -c constraints.txt

USER qartsr
COPY --chown=qartsr:qartsr README.md LICENSE dvc.yaml params.yaml .dvcignore ./
COPY --chown=qartsr:qartsr .dvc/config .dvc/config
COPY --chown=qartsr:qartsr configs configs
COPY --chown=qartsr:qartsr weights weights
COPY --chown=qartsr:qartsr photographs photographs
COPY --chown=qartsr:qartsr qartsr qartsr
COPY --chown=qartsr:qartsr stages stages
COPY --chown=qartsr:qartsr pipelines pipelines

# Editable, so that the code DVC hashes is the code that runs.
USER root
RUN uv pip install --system --no-cache --no-deps --editable .
USER qartsr

# DVC refuses a folder with .dvc and without .git until it is told that there is none.
RUN dvc config --local core.no_scm true

CMD ["python", "-m", "pipelines.reproduce"]
