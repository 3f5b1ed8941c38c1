# The environment as an image, from Debian and the lock file alone. The checkout is not in it: it is mounted.
#
#   docker build -t dica .       (or: podman, buildah; apptainer build dica.sif docker-daemon://dica:latest)
#   docker run --rm -v "$PWD:/archive" dica snakemake --cores all light
FROM debian:bookworm-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv git make openssh-client \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/dica
ENV PATH=/opt/dica/bin:$PATH PYTHONPATH=/archive/src
COPY requirements.lock /opt/dica/requirements.lock
RUN pip install --no-cache-dir -r /opt/dica/requirements.lock \
    && git config --system --add safe.directory /archive
# A run's record names what it was trained in; an image cannot know its own digest, so it has that of its recipe.
COPY Dockerfile /opt/dica/Dockerfile
ENV DICA_IMAGE_RECIPE=/opt/dica/Dockerfile
WORKDIR /archive
