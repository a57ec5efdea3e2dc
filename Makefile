# From a fresh clone, with Python 3.11 or newer, git and make:
#
#   make demo        the whole pipeline at small size: local services, training, packages, registered versions, report
#   make stop        stop the local services (their data stays in .services/)
#   make experiments every method in one harness: the tables of docs/experiments.md, many hours on two cores
#   make test        the tests that a change is made with; make test-long: whole processes, as CI runs them too;
#                    make test-slow: all there are
#   make docs        the documents as a site, in build/site; a link that leads nowhere is an error
#   make web-test    the page of `qartsr web` in Debian's chromium (installs it, as root)
#   make cluster-test   a real Slurm and a Ray cluster of two nodes on this machine (installs Debian packages, as root)
#   make database-test  what MLflow and Prefect write, into PostgreSQL instead of SQLite (installs Debian's, as root)
#   make images stack   the images of docker/, and the whole stack of compose.yaml (docker/README.md); first `make base`
#                    where there is no registry of images
#   make chaos       damage, forgery, kills and full disks for an hour (SECONDS_OF_CHAOS), see docs/reliability.md
#   make audit       known vulnerabilities of the versions in constraints.txt
#   make check       formatting, types, import order, spelling: what pre-commit and CI run
#   make format      mend what can be mended by machine
#   make release     wheel, sdist and SBOM in build/dist, checked as the package index checks them
#   make licences    of all dependencies, written to docs/licences.csv
#   make deps        the code that each stage imports, written into dvc.yaml

VENV   ?= .venv
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
# A process that keeps no bytecode compiles torch anew, up to half of a start; __pycache__ is ignored by git and DVC.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: release licences demo experiments services stop venv test test-long test-slow cluster-test database-test web-test base images stack chaos audit docs ship check deps format
.DEFAULT_GOAL := demo

demo: services
	@set -a; . ./.services/env; set +a; exec $(BIN)/python -m pipelines.reproduce

experiments: services
	@set -a; . ./.services/env; set +a; $(BIN)/python -m pipelines.reproduce --targets data backbone && \
		exec $(BIN)/python -m pipelines.reproduce --workspace experiments

services: $(STAMP)
	@$(BIN)/python -m qartsr.services start

stop: $(STAMP)
	@$(BIN)/python -m qartsr.services stop

# A file's tests stay together: they share models and projects. The order is that of tests/conftest.py, slowest first.
# One worker more than there are cores: some tests wait for servers.
WORKERS = $$(( $$(getconf _NPROCESSORS_ONLN) + 1 ))
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(STAMP)
	@$(PYTEST)

test-long: $(STAMP)
	@$(PYTEST) -m "long and not slow and not gpu"

test-slow: $(STAMP)
	@$(PYTEST) -m "not gpu"

# $(call debian,FILES,PACKAGES): Debian's packages, where one of the files (patterns) that they bring is missing.
debian = for each in $(1); do ls $$each >/dev/null 2>&1 || missing=$$each; done; \
	test -z "$$missing" || { apt-get update --quiet && apt-get install --yes --no-install-recommends $(2); }

cluster-test: $(STAMP)
	@$(call debian,/usr/sbin/slurmctld /usr/sbin/slurmd /usr/bin/srun /usr/bin/munge /usr/lib/*/slurm*/select_cons_tres.so,\
		slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge)
	@$(BIN)/python -m pytest -m cluster -ra tests/pipelines/test_slurm.py tests/cli/test_ray.py

database-test: $(STAMP)
	@$(call debian,/usr/lib/postgresql/*/bin/initdb,postgresql)
	@QARTSR_TEST_DATABASE=postgresql $(BIN)/python -m pytest -ra -m "services or pipeline" tests/services/test_command.py \
		tests/tracking/test_open.py tests/tracking/test_run.py tests/release/test_publish.py tests/release/test_promote.py \
		tests/pipelines/test_deployments.py

web-test: $(STAMP)
	@$(call debian,/usr/bin/chromium,chromium)
	@$(BIN)/python -m pytest -m browser -ra tests/web

# docker, podman or buildah, the first that answers: a docker without its daemon builds nothing. Looked for once, and only where
# a target needs it. BASE_IMAGE: a base that is here, where there is no registry of images (docker/README.md).
ENGINE ?= $(eval ENGINE := $(firstword $(foreach e,docker podman buildah,\
	$(shell $(e) version >/dev/null 2>&1 && echo $(e)))))$(ENGINE)
# Images of the kind that keeps the health check, which podman and buildah do not make of themselves.
BUILD   = $(ENGINE) build $(if $(filter podman buildah,$(notdir $(ENGINE))),--format docker) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
	$(if $(PIP_INDEX_URL),--build-arg PIP_INDEX_URL=$(PIP_INDEX_URL)) \
	$(if $(UV_DEFAULT_INDEX),--build-arg UV_DEFAULT_INDEX=$(UV_DEFAULT_INDEX)) $(BUILD_ARGS)
engine  = test -n "$(ENGINE)" || { echo "error: no docker, podman or buildah answers here; install one, or start docker's daemon" >&2; exit 1; }
COMPOSE ?= $(if $(shell docker compose version 2>/dev/null),docker compose,docker-compose)

# For BASE_IMAGE=localhost/base:bookworm, where there is no registry of images: Debian's packages, and the certificates that
# this machine trusts, so that a mirror behind a private authority is reached.
base:
	@$(engine)
	@$(call debian,/usr/bin/mmdebstrap,mmdebstrap)
	@mkdir -p build/base
	mmdebstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates \
		--customize-hook='copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs' bookworm build/base/base.tar $(MIRROR)
	printf 'FROM scratch\nADD base.tar /\nENV %s %s\n' PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
		SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt > build/base/Dockerfile
	$(ENGINE) build -t localhost/base:bookworm build/base
	@rm -r build/base

images:
	@$(engine)
	$(BUILD) -f docker/serve.Dockerfile --build-arg EXTRA=server -t qartsr-serve:0.1.0 .
	$(BUILD) -f docker/train.Dockerfile -t qartsr-train:0.1.0 .
	$(if $(BASE_IMAGE),$(BUILD) -f docker/debian.Dockerfile -t qartsr-debian:0.1.0 .)

stack:
	@test docker != $(notdir $(firstword $(COMPOSE))) || docker version >/dev/null 2>&1 || { echo "error: make stack: docker's daemon does not answer; start it, or name it in DOCKER_HOST" >&2; exit 1; }
	@command -v $(firstword $(COMPOSE)) >/dev/null || { echo "error: make stack: no docker compose and no docker-compose here; install one" >&2; exit 1; }
	$(COMPOSE) -p qartsr -f docker/compose.yaml $(if $(BASE_IMAGE),-f docker/compose.debian.yaml) up --detach

SECONDS_OF_CHAOS ?= 3600

chaos: $(STAMP)
	@$(call debian,/usr/lib/*/faketime/libfaketime.so.1,libfaketime) || \
		echo "libfaketime is not installed: another clock is not tried"
	@$(BIN)/python -m tests.chaos --seconds $(SECONDS_OF_CHAOS)

# Asks the package index for what it knows; --strict, for without it an index that knows nothing counts as all well.
audit: $(STAMP)
	@$(BIN)/uv tool run pip-audit==2.10.1 --requirement constraints.txt --no-deps --disable-pip \
		--strict --progress-spinner off

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "build/site/index.html"

ship:
	@test -f build/packages/w4a4/summary.json || { echo "error: build/packages/w4a4: is not there; run make demo first"; exit 1; }
	@rm -rf weights/w4a4 && mkdir weights/w4a4
	@cp build/packages/w4a4/* weights/w4a4/
	@echo "weights/w4a4: the package that comes with the repository; commit it"

deps: $(STAMP)
	@$(BIN)/python -m tests.house.deps

# The SBOM is of what the wheel brings with its extras for running models: of all of .venv it did not end within five
# minutes, for the tool looks through every package for each dependency.
release: $(STAMP)
	@rm -rf build/dist
	$(BIN)/uv build --quiet --out-dir build/dist
	$(BIN)/uv tool run twine@7.0.0 check --strict build/dist/*
	@rm -rf build/sbom && $(BIN)/uv venv --quiet --python $(BIN)/python build/sbom
	$(BIN)/uv pip install --quiet --python build/sbom/bin/python \
		"$$(ls build/dist/*.whl)[runtime,torch,registry,server]" -c constraints.txt
	$(BIN)/uv tool run --from cyclonedx-bom==7.5.0 cyclonedx-py environment build/sbom/bin/python \
		--output-file build/dist/sbom.json
	@rm -rf build/sbom

licences: $(STAMP)
	@$(BIN)/uv tool run pip-licenses==5.5.5 --python $(BIN)/python --format=csv --with-system \
		--ignore-packages qartsr --output-file docs/licences.csv

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: $(STAMP)

# uv resolves in seconds what pip of older Pythons does not resolve at all. It ignores pip's configuration file, so an
# index named there is handed on. Where uv cannot be had, a current pip does the same in minutes.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer was found; say make PYTHON=/path/to/python"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "error: $(PYTHON) cannot make a virtual environment; install its venv package"; rm -rf $(VENV); exit 1; }
	@echo "installing into $(VENV) (about 7 GB on Linux: PyTorch brings CUDA) ..."
	@index=$$($(BIN)/python -m pip config get global.index-url 2>/dev/null || true); \
	if [ -n "$$index" ] && [ -z "$$UV_DEFAULT_INDEX" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
	if $(BIN)/python -m pip install --quiet uv -c constraints.txt && \
		$(BIN)/uv pip install --quiet --python $(BIN)/python -e ".[all]" -c constraints.txt; then :; \
	else \
		echo "uv did not manage; trying pip"; \
		$(BIN)/python -m pip install --quiet --upgrade pip && \
		$(BIN)/python -m pip install --quiet -e ".[all]" -c constraints.txt; \
	fi
	@touch $(STAMP)
	@$(BIN)/qartsr fetch-metric-weights niqe || echo "NIQE will not be measured; everything else is"
