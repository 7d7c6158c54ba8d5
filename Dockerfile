# Two images of one wheel:
#
#   docker build -t nemo_aligner_cai .                           training and data, on the released NeMo container
#   docker build -t nemo_aligner_cai:data --target data .        making and checking data alone: no torch, no GPU
#
#   docker run --gpus all --shm-size=16g --user "$(id -u):$(id -g)" -v "$PWD:/work" nemo_aligner_cai \
#       cai train sft model.restore_from_path=/work/mistral-7b.nemo ...
#   docker run --user "$(id -u):$(id -g)" -v "$PWD:/work" nemo_aligner_cai:data cai validate /work/train.jsonl
#
# Both run as any user: nothing of the package is written at run time, and caches go below /tmp, not below $HOME.
# A tag can move: give a digest for a build that must not, --build-arg NEMO_IMAGE=nvcr.io/nvidia/nemo@sha256:...
ARG NEMO_IMAGE=nvcr.io/nvidia/nemo:25.02.01
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /source
# Readable by every user, whatever the umask of the checkout.
COPY . .
RUN grep '^setuptools==' constraints/cpu.hashes.txt > /tmp/setuptools.txt \
    && python -m pip install --no-cache-dir --require-hashes --no-deps -r /tmp/setuptools.txt \
    && python -m pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheel . \
    && chmod -R a+rX /wheel /source

FROM ${PYTHON_IMAGE} AS data
LABEL org.opencontainers.image.title="nemo_aligner_cai, data half" \
      org.opencontainers.image.description="Constitutional AI data for NVIDIA NeMo-Aligner" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
# The versions that the tests ran with, and no file whose hash is not listed.
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    --mount=type=bind,from=wheel,source=/source/constraints,target=/constraints \
    python -m pip install --no-cache-dir --require-hashes --no-deps -r /constraints/data.hashes.txt \
    && python -m pip install --no-cache-dir --no-index --no-deps /wheel/*.whl \
    && python -m pip check \
    && useradd --uid 10001 --no-create-home --home-dir /tmp cai \
    && install -d -m 1777 /work
COPY --from=wheel /source/examples/nlp/cai /opt/nemo_aligner_cai/examples/nlp/cai
ENV PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/tmp/cache
USER 10001
WORKDIR /work
# Every judge, generator, processor and format is imported: an install that lacks something fails here, not in a run.
RUN cai doctor --for data
CMD ["cai", "--help"]

FROM ${NEMO_IMAGE} AS nemo
LABEL org.opencontainers.image.title="nemo_aligner_cai" \
      org.opencontainers.image.description="Constitutional AI for NVIDIA NeMo-Aligner, on the NeMo container" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Every package of the container is pinned to the version it has, so pip can add what the core lacks and change
# nothing: a core that needs another version ends the build. The comparison shows it: all that was there still is.
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    install -d /opt/nemo_aligner_cai \
    && python -m pip list --format=freeze | sort > /opt/nemo_aligner_cai/container_packages.txt \
    && python -m pip install --no-cache-dir --constraint /opt/nemo_aligner_cai/container_packages.txt /wheel/*.whl \
    && python -m pip list --format=freeze | sort > /tmp/after.txt \
    && changed="$(comm -23 /opt/nemo_aligner_cai/container_packages.txt /tmp/after.txt)" \
    && if [ -n "$changed" ]; then echo "changed by the install: $changed" >&2; exit 1; fi \
    && rm /tmp/after.txt \
    && install -d -m 1777 /work
COPY --from=wheel /source/examples /opt/nemo_aligner_cai/examples
# getpass, which torch asks for a user's cache folder, fails for a user id without a name: the variable answers it.
ENV NEMO_ALIGNER_HOME=/opt/NeMo-Aligner \
    USER=cai \
    XDG_CACHE_HOME=/tmp/cache \
    HF_HOME=/tmp/cache/huggingface \
    MPLCONFIGDIR=/tmp/cache/matplotlib \
    NUMBA_CACHE_DIR=/tmp/cache/numba \
    PYTRITON_HOME=/tmp/cache/pytriton \
    TORCHINDUCTOR_CACHE_DIR=/tmp/cache/torchinductor \
    TRITON_CACHE_DIR=/tmp/cache/triton
WORKDIR /work
RUN cai doctor --for data && test -f "$NEMO_ALIGNER_HOME/examples/nlp/gpt/train_gpt_sft.py"
CMD ["bash"]
