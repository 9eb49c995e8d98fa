# The command voxblink2, with FFmpeg and the versions of constraints.txt.
#
#   docker build -t voxblink2 --build-arg TORCH_INDEX=URL .
#   docker run --rm -v /data:/data voxblink2 status --store /data/voxblink2
#
# URL is the index of PyTorch's builds for processors, which PyTorch's page "Get started" shows for "CPU".
# Without it, pip takes the build with CUDA, several gigabytes larger on x86-64; then add "--gpus all" to
# "docker run", on a host with NVIDIA's container toolkit. docs/install.md has more.
FROM python:3.11-slim-bookworm

# hadolint ignore=DL3008 # Debian's mirrors keep no version but the last, so a pinned one ends in errors
RUN apt-get update \
    && apt-get install -y --no-install-recommends ffmpeg \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/voxblink2
COPY constraints.txt ./
ARG TORCH_INDEX=""
RUN pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch

COPY pyproject.toml setup.cfg MANIFEST.in README.md LICENSE voxblink2.py ./
COPY voxblink2_lib voxblink2_lib
COPY metrics metrics
COPY examples examples
RUN pip install --no-cache-dir -c constraints.txt ".[youtube,get,s3]"

# Files in mounted folders belong to this user: "--user $(id -u):$(id -g)" takes another.
RUN useradd --create-home --uid 1000 voxblink2 \
    && install -d -o voxblink2 /data
USER 1000
WORKDIR /data
ENV VOXBLINK2_HOME=/data/.voxblink2 HF_HOME=/data/.huggingface
ENTRYPOINT ["voxblink2"]
CMD ["--help"]
