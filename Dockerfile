FROM python:3.11-slim-bookworm

RUN apt-get update \
 && apt-get install --yes --no-install-recommends bubblewrap ca-certificates git git-lfs \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 orchestrator \
 && install --directory --owner 10001 --group 10001 --mode 0700 /data

WORKDIR /opt/orchestrator
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

# By number, so that Kubernetes sees that it is not root.
USER 10001:10001
ENV DATA_DIR=/data REPOS_DIR=/data/repos WORKTREES_DIR=/data/worktrees BIND_ADDRESS=0.0.0.0
ENTRYPOINT ["orchestrator"]
