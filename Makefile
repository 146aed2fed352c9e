# Everything that is done with this repository. `make help` lists it; Python 3.11 or later and make are all it needs.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PORT ?= 50051
SOAK_SECONDS ?= 1800
VERSION_TAG := 0.1.0
IMAGE ?= abstractllm:$(VERSION_TAG)$(if $(filter-out cpu,$(VARIANT)),-$(VARIANT))
PROVIDER ?= openai
VARIANT ?= cpu
VARIANTS ?= cpu cuda slim
PYTHON_VERSION ?= 3.12

BIN := .venv/bin
PINS := constraints.txt pyproject.toml clients/python/pyproject.toml tools/setup_environment.sh

.PHONY: help run serve demo test abuse soak interop packages gpu-bundle test-torch check lint charts types contracts generate checkgenerate bench docs image bump image-rehearsal locks checklocks release

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/.installed-run ## Set up, start the server with the demo model, show a streamed answer, serve until Ctrl-C (PORT=50051)
	@$(BIN)/python tools/demo.py --port $(PORT)

serve: .venv/.installed-hosted ## Set up without PyTorch, serve a hosted model until Ctrl-C (PROVIDER=openai, anthropic or ollama; MODEL)
	@$(BIN)/abstractllm serve --provider $(PROVIDER) $(if $(MODEL),--model "$(MODEL)") --port $(PORT)

demo: .venv/.installed-run ## As run, then exit
	@$(BIN)/python tools/demo.py --port $(PORT) --exit

test: .venv/.installed ## Set up and run every test
	@$(BIN)/python -m tools.helm >/dev/null
	$(BIN)/python -m pytest --numprocesses 2 --max-worker-restart 0

abuse: .venv/.installed ## Attack and fail a server in every way of docs/reliability.md, and write the figures there (40 minutes)
	$(BIN)/python -m tests.reliability --markdown
	$(BIN)/python -m tests.fuzz
	$(BIN)/python -m tests.reliability.prometheus

soak: .venv/.installed ## Mixed load with crashing callers, kills, freezes and reloads (SOAK_SECONDS=1800)
	SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m tests.reliability --rows 23 --markdown

interop: .venv/.installed ## Every client against the same servers: prints language x behaviour, fails on a hole
	CI=true $(BIN)/python -m pytest -q tests/interop

check: lint types contracts checkgenerate checklocks test ## Lint, types, import contracts, buf, generated code, every test

lint: .venv/.installed ## Format and lint: Python, the .proto files and their compatibility, the Dockerfile, the charts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/buf lint
	$(BIN)/buf breaking --against proto/released/0.1.0.binpb
	$(BIN)/hadolint Dockerfile
	$(BIN)/python -m tools.charts

charts: .venv/.installed ## Lint, render and pack the Helm charts, with a helm that is built once; write the tests' golden renderings
	$(BIN)/python -m tools.charts --write

types: .venv/.installed ## mypy, strict
	$(BIN)/mypy

contracts: .venv/.installed ## The imports that must never exist
	$(BIN)/lint-imports

generate: .venv/.installed ## Write everything that follows from proto/ or a table anew: code, parameter tables, pages of docs
	$(BIN)/python -m tools.generate

checkgenerate: .venv/.installed ## Fail where anything of that differs from what it follows from
	$(BIN)/python -m tools.generate --check

test-torch: .venv/.installed ## Run the batch loop's tests with the lowest PyTorch that is allowed, on a CPU (a download of 600 MB)
	@$(BIN)/python -m tools.lowest_torch

bench: .venv/.installed ## Measure everything in under 30 minutes and write docs/benchmarks.md (PARTS=server,engine: these alone)
	@$(BIN)/python -m benchmarks --parts "$(PARTS)"

docs: .venv/.installed ## Write the Python reference to build/docs
	$(BIN)/pdoc --docformat google --output-directory build/docs abstractllm abstractllm_client '!abstractllm.providers.huggingface.worker'

packages: .venv/.installed ## Build what is published into dist/: Python, Java, npm, a Go module proxy, the Helm chart
	$(BIN)/python tools/packages.py

release: .venv/.installed ## As packages, with bills of materials, provenance and digests, from a clean checkout (IMAGES=1)
	$(BIN)/python -m tools.release $(if $(IMAGES),--images)

gpu-bundle: .venv/.installed ## Collect tests/gpu and benchmarks.gpu, with what they need, for a CUDA machine without network (PYTHON_VERSION=3.12)
	@$(BIN)/python tools/gpu_bundle.py --python $(PYTHON_VERSION)

bump: .venv/.installed ## Change the version everywhere, before a release (VERSION=X.Y.Z)
	@$(BIN)/python tools/bump.py "$(VERSION)"

image: ## Build a container image (VARIANT=cpu, cuda or slim)
	@case "$(VARIANT)" in cpu|cuda|slim) ;; *) echo "VARIANT is cpu, cuda or slim, not $(VARIANT)" >&2; exit 2;; esac
	docker build --build-arg VARIANT=$(VARIANT) --build-arg VERSION=$(VERSION_TAG) \
	    --build-arg REVISION=$$(git rev-parse HEAD) --build-arg SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
	    --tag $(IMAGE) --tag abstractllm:$(VARIANT) .

image-rehearsal: .venv/.installed ## Run each image's steps without Docker, and tell sizes and times (VARIANTS="cpu cuda slim")
	$(BIN)/python -m tests.deploy.rehearse $(VARIANTS)

locks: .venv/.installed ## Resolve the images' locks anew, after a change of constraints.txt or of an extra
	$(BIN)/python -m tools.images.locks

checklocks: .venv/.installed ## Fail where the images' locks do not follow from constraints.txt and pyproject.toml
	$(BIN)/python -m tools.images.locks --check

.venv/.installed-hosted: $(PINS)
	@sh tools/setup_environment.sh hosted

.venv/.installed-run: $(PINS)
	@sh tools/setup_environment.sh run

.venv/.installed: $(PINS)
	@sh tools/setup_environment.sh test
