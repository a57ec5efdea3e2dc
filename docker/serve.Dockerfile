# Running models: `qartsr upscale` and `qartsr inspect` with PyTorch, or with ENGINE=runtime packages alone, on a CPU,
# without it (docs/engines.md); with EXTRA=server also `qartsr serve`, with EXTRA=serve `mlflow models serve` (docs/serving.md).
# From the root:
#
#   docker build -f docker/serve.Dockerfile -t qartsr-serve:0.1.0 .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/images" qartsr-serve:0.1.0 \
#       upscale photo.jpg photo_x4.png --model model.safetensors
#
# TORCH_BACKEND: which build of PyTorch uv takes: cpu, or cu130 and the like for a GPU (`docker run --gpus all`), from
# PyTorch's own index; empty takes what the package index has, with CUDA.
# BASE_IMAGE: any Debian-like image with python3, its venv and pip packages and CA certificates.
# UV_FIND_LINKS: a folder of wheels, mounted while building, where PyTorch's own index cannot be reached.
ARG BASE_IMAGE=python:3.12.12-slim-bookworm
FROM ${BASE_IMAGE}

ARG TORCH_BACKEND=cpu
ARG ENGINE=torch
ARG EXTRA
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
ARG UV_FIND_LINKS
# A virtual environment, for Debian's own Python takes no packages (PEP 668). Bytecode is made here: who runs the image
# may not write it, and a start that compiles takes up to twice the processor time. /cache holds models fetched from a registry.
# With HOME and USER, any `--user` of `docker run` will do.
ENV PYTHONUNBUFFERED=1 \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1 \
    VIRTUAL_ENV=/opt/venv \
    PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    XDG_CACHE_HOME=/cache \
    HOME=/tmp \
    USER=qartsr
RUN install --directory --mode=1777 /cache && python3 -m venv /opt/venv

WORKDIR /opt/qartsr
COPY pyproject.toml constraints.txt ./
RUN pip install --no-cache-dir uv -c constraints.txt \
    && uv pip install --no-cache ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"} \
        -r pyproject.toml --extra "$ENGINE" ${EXTRA:+--extra "$EXTRA"} -c constraints.txt

COPY README.md LICENSE ./
COPY configs configs
COPY experiments/params.yaml experiments/params.yaml
COPY qartsr qartsr
RUN uv pip install --no-cache --no-deps .

# A number, which Kubernetes' runAsNonRoot needs.
RUN useradd --create-home --uid 1000 qartsr
USER 1000
WORKDIR /images
# Of `qartsr serve` at its usual port; a command that does not listen does not live long enough to be asked.
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=5)"]
ENTRYPOINT ["qartsr"]
CMD ["--help"]
