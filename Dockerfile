# The server `abstractllm serve`, with every provider and the demo model.
#
#   docker build --build-arg BASE=cpu  --tag abstractllm .
#   docker build --build-arg BASE=cuda --tag abstractllm .
#
# To install from a mirror, or PyTorch without CUDA, hand pip a configuration that does not stay in the image:
#   docker build --secret id=pip,src=pip.conf .
ARG BASE=cpu

FROM python:3.11-slim-bookworm AS cpu

FROM nvidia/cuda:13.0.1-base-ubuntu24.04 AS cuda
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

# hadolint ignore=DL3006
FROM ${BASE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY clients/python clients/python
COPY abstractllm abstractllm
COPY server server
COPY cli cli
RUN python3 -m venv /opt/abstractllm
RUN --mount=type=cache,target=/var/cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf \
    export PIP_CACHE_DIR=/var/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 \
    && /opt/abstractllm/bin/pip install --constraint constraints.txt pip setuptools \
    && /opt/abstractllm/bin/pip install --no-build-isolation --constraint constraints.txt \
        ./clients/python '.[anthropic,huggingface,ollama,openai,server]'

# hadolint ignore=DL3006
FROM ${BASE}
RUN groupadd --gid 10001 abstractllm \
    && useradd --uid 10001 --gid abstractllm --create-home abstractllm \
    && install --directory --owner abstractllm --group abstractllm /home/abstractllm/.cache/abstractllm
COPY --from=build /opt/abstractllm /opt/abstractllm
COPY deploy/image/healthcheck.py /opt/abstractllm/healthcheck.py
# The ports for monitoring, on the loopback address. Those who probe or scrape from outside of the container set
# `--monitoring 0.0.0.0:9464` and `--health 0.0.0.0:50052`, or the keys of the same names; the check below needs port 9464.
ENV PATH=/opt/abstractllm/bin:$PATH PYTHONUNBUFFERED=1 \
    ABSTRACTLLM_MONITORING=127.0.0.1:9464 ABSTRACTLLM_HEALTH=127.0.0.1:50052
USER 10001:10001
WORKDIR /home/abstractllm

# Downloaded models.
VOLUME ["/home/abstractllm/.cache/abstractllm"]

# By default the server listens on the loopback address, without credentials: to the other containers of its pod, and
# with `docker run --network host`. Any other address needs credentials, or `--insecure` said aloud:
#   docker run --publish 127.0.0.1:50051:50051 abstractllm serve --model demo --host 0.0.0.0 --insecure
EXPOSE 50051 50052 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
    CMD ["/opt/abstractllm/bin/python", "-I", "/opt/abstractllm/healthcheck.py", "127.0.0.1:9464"]

# No shell in between: the server itself is process 1 and gets the signal that ends it.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/abstractllm/bin/abstractllm"]
CMD ["serve", "--model", "demo"]
