# The environment as an image, from Debian and the lock file alone. The checkout is not in it: it is mounted.
#
#   docker build -t dica .       (or: podman, buildah; apptainer build dica.sif docker-daemon://dica:latest)
#   docker run --rm -v "$PWD:/archive" dica snakemake --cores all light
FROM debian:bookworm-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv git make openssh-client \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /usr/local/dica
ENV PATH=/usr/local/dica/bin:$PATH PYTHONPATH=/archive/src
COPY requirements.lock /usr/local/dica/requirements.lock
RUN pip install --no-cache-dir -r /usr/local/dica/requirements.lock \
    && git config --system --add safe.directory /archive
# A run's record names what it was trained in; an image cannot know its own digest, so it has that of its recipe.
COPY Dockerfile /usr/local/dica/Dockerfile
ENV DICA_IMAGE_RECIPE=/usr/local/dica/Dockerfile
WORKDIR /archive
