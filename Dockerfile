# The server `abstractllm serve`, in three images:
#
#   docker build --build-arg VARIANT=cpu  --tag abstractllm .          every provider, local models on the CPU
#   docker build --build-arg VARIANT=cuda --tag abstractllm:cuda .     every provider, local models on NVIDIA GPUs
#   docker build --build-arg VARIANT=slim --tag abstractllm:slim .     hosted providers alone, without PyTorch
#
# docs/images.md tells how to run them, and what each holds. To install from a mirror, hand pip a configuration that does
# not stay in the image; the hashes of the locks hold for it, too:
#   docker build --secret id=pip,src=pip.conf .
ARG VARIANT=cpu
# A base image is named by its version. Whoever may only build from known content appends its digest here or by
# `--build-arg`: python:3.11.14-slim-bookworm@sha256:...
ARG PYTHON_BASE=python:3.11.14-slim-bookworm
ARG CUDA_BASE=nvidia/cuda:13.0.1-base-ubuntu24.04

FROM ${PYTHON_BASE} AS slim

FROM ${PYTHON_BASE} AS cpu
# PyTorch sees no GPU, whatever the container is given: see deploy/image/absent_cuda.py.
ENV CUDA_VISIBLE_DEVICES=""

FROM ${CUDA_BASE} AS cuda
# Triton compiles the launchers of its kernels with a C compiler and Python's headers when the model loads.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev python3 python3-dev \
    && rm -rf /var/lib/apt/lists/*

# What only the installation needs.
FROM slim AS slim-build

FROM cpu AS cpu-build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*

FROM cuda AS cuda-build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*

# hadolint ignore=DL3006
FROM ${VARIANT}-build AS build
ARG VARIANT
# Seconds since 1970 that files in wheels are dated with, for builds that are to be the same bit by bit.
ARG SOURCE_DATE_EPOCH=315532800
ENV PIP_CACHE_DIR=/var/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY deploy/image deploy/image
# What is installed from a package index, by its hash; the environment of the image itself has no pip.
RUN --mount=type=cache,target=/var/cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --no-deps --only-binary :all: -r deploy/image/locks/build.txt \
    && python3 -m venv --without-pip /opt/abstractllm \
    && /opt/build/bin/pip --python /opt/abstractllm/bin/python install --require-hashes --no-deps --only-binary :all: \
        -r "deploy/image/locks/${VARIANT}.txt"
# Our own two distributions, built from the sources.
COPY pyproject.toml README.md LICENSE ./
COPY clients/python clients/python
COPY abstractllm abstractllm
COPY server server
COPY cli cli
RUN /opt/build/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /opt/build/wheels ./clients/python . \
    && /opt/build/bin/pip --python /opt/abstractllm/bin/python install --no-index --no-deps /opt/build/wheels/*.whl \
    && if [ "${VARIANT}" = cpu ]; then \
        python3 deploy/image/absent_cuda.py /opt/abstractllm/lib/python3.*/site-packages; fi
# Bytecode, which the server could not write. Some packages bring files for later versions of Python alone.
RUN /opt/abstractllm/bin/python -m compileall -qq -j 0 --invalidation-mode unchecked-hash /opt/abstractllm/lib \
    || echo "files without bytecode: those that another version of Python is needed for"

# hadolint ignore=DL3006
FROM ${VARIANT}
ARG VARIANT
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="abstractllm" \
      org.opencontainers.image.description="One gRPC service for text from local and hosted language models (${VARIANT})" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT"
# All that is written: models and compiled kernels, in the volume, and unix sockets. The rest may be read-only.
RUN groupadd --gid 10001 abstractllm \
    && useradd --uid 10001 --gid abstractllm --create-home abstractllm \
    && install --directory --owner abstractllm --group abstractllm \
        /home/abstractllm/.cache /home/abstractllm/.cache/abstractllm /run/abstractllm
COPY --from=build /opt/abstractllm /opt/abstractllm
COPY deploy/image/healthcheck.py /opt/abstractllm/healthcheck.py
COPY deploy/image/llms/${VARIANT}.yaml /etc/abstractllm/llms.yaml
# The ports for monitoring, on the loopback address. Those who probe or scrape from outside of the container set these
# variables; the check below asks where ABSTRACTLLM_MONITORING says.
ENV PATH=/opt/abstractllm/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    ABSTRACTLLM_MONITORING=127.0.0.1:9464 ABSTRACTLLM_HEALTH=127.0.0.1:50052
# PyTorch cannot be imported without a folder for temporary files, nor by a user whom nobody knows; both for `--read-only`
# and for `--user` with any number.
ENV HOME=/home/abstractllm USER=abstractllm TMPDIR=/home/abstractllm/.cache/abstractllm \
    HF_HOME=/home/abstractllm/.cache/abstractllm/huggingface \
    TORCHINDUCTOR_CACHE_DIR=/home/abstractllm/.cache/abstractllm/torchinductor \
    TRITON_CACHE_DIR=/home/abstractllm/.cache/abstractllm/triton \
    CUDA_CACHE_PATH=/home/abstractllm/.cache/abstractllm/cuda
USER 10001:10001
WORKDIR /home/abstractllm

# Downloaded models, what is compiled for the GPU, temporary files.
VOLUME ["/home/abstractllm/.cache/abstractllm"]

# By default the server listens on the loopback address, without credentials: to the other containers of its pod, and
# with `docker run --network host`. Any other address needs credentials, or `--insecure` said aloud:
#   docker run --publish 127.0.0.1:50051:50051 abstractllm serve --model demo --host 0.0.0.0 --insecure
EXPOSE 50051 50052 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
    CMD ["/opt/abstractllm/bin/python", "-I", "/opt/abstractllm/healthcheck.py"]

# No shell in between: the server itself is process 1, gets the signal that ends it, and takes in what its engines leave.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/abstractllm/bin/abstractllm"]
CMD ["serve", "--config", "/etc/abstractllm/llms.yaml"]
