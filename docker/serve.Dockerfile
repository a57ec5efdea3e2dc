# Running models: `qartsr upscale` and `qartsr inspect` with PyTorch, or with ENGINE=runtime packages alone, on a CPU,
# without it (docs/engines.md); with EXTRA=serve also `mlflow models serve` (docs/serving.md). From the root:
#
#   docker build -f docker/serve.Dockerfile -t qartsr-serve:0.1.0 .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/images" qartsr-serve:0.1.0 \
#       upscale photo.jpg photo_x4.png --model model.safetensors
#
# TORCH_BACKEND: which build of PyTorch uv takes: cpu, or cu130 and the like for a GPU (`docker run --gpus all`), from
# PyTorch's own index; empty takes what the package index has, with CUDA.
FROM python:3.12.12-slim-bookworm

ARG TORCH_BACKEND=cpu
ARG ENGINE=torch
ARG EXTRA
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
# /cache holds models fetched from a registry. With HOME and USER, any `--user` of `docker run` will do.
ENV PYTHONUNBUFFERED=1 \
    UV_LINK_MODE=copy \
    XDG_CACHE_HOME=/cache \
    HOME=/tmp \
    USER=qartsr
RUN install --directory --mode=1777 /cache

WORKDIR /opt/qartsr
COPY pyproject.toml constraints.txt ./
RUN pip install --no-cache-dir uv -c constraints.txt \
    && uv pip install --system --no-cache ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"} \
        -r pyproject.toml --extra "$ENGINE" ${EXTRA:+--extra "$EXTRA"} -c constraints.txt

COPY README.md LICENSE ./
COPY qartsr qartsr
RUN uv pip install --system --no-cache --no-deps .

RUN useradd --create-home --uid 1000 qartsr
USER qartsr
WORKDIR /images
ENTRYPOINT ["qartsr"]
CMD ["--help"]
