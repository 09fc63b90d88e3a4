# Arriero in a container. CPU by default: one image runs at full speed on any CPU, because llama.cpp's backends are loaded at
# start and one is built per CPU generation. For NVIDIA GPUs: docker build --build-arg BACKEND=cuda .
# Such an image also runs on a machine without a GPU.
ARG BACKEND=cpu
ARG RUST=1.95.0
ARG CUDA=12.6.3

FROM rust:${RUST}-slim-bookworm AS build-cpu
FROM nvidia/cuda:${CUDA}-devel-ubuntu24.04 AS build-cuda
COPY --from=build-cpu /usr/local/cargo /usr/local/cargo
COPY --from=build-cpu /usr/local/rustup /usr/local/rustup
ENV CARGO_HOME=/usr/local/cargo RUSTUP_HOME=/usr/local/rustup PATH=/usr/local/cargo/bin:$PATH

FROM build-${BACKEND} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates cmake g++ git libclang-dev make pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /arriero
COPY . .
ARG BACKEND
RUN .ci/stage-image /stage ${BACKEND}

FROM debian:bookworm-slim AS runtime-cpu
FROM nvidia/cuda:${CUDA}-runtime-ubuntu24.04 AS runtime-cuda

FROM runtime-${BACKEND}
# A volume that is mounted on the cache or the state gets the owner that they have here.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libgomp1 libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home arriero \
    && install -d -o arriero -m 700 /home/arriero/.cache /home/arriero/.cache/arriero \
        /home/arriero/.local /home/arriero/.local/state /home/arriero/.local/state/arriero
# Libraries and backends are looked for beside the binary.
COPY --from=build /stage /usr/local/lib/arriero
RUN ln -s /usr/local/lib/arriero/arriero /usr/local/bin/arriero \
    && arriero --version
# By number, so that an orchestrator can tell that it is not root.
USER 10001
EXPOSE 11434 11435
# bash speaks TCP by itself, which saves a client in the image.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/11434 && printf 'GET /health HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
# As environment and not as flags, so that a config file or `-e OLLAMA_HOST=…` still decides.
ENV OLLAMA_HOST=0.0.0.0:11434 ARRIERO__ADMIN=0.0.0.0:11435
ENTRYPOINT ["arriero"]
CMD ["serve"]
