# Two images of one source: `server` for gateway, handlers and projections, without torch, and `agent`.
#   docker build --target server -t finetrail:0.1.0 .
#   docker build --target agent -t finetrail-agent:0.1.0 .
# For an agent with CUDA: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130

FROM python:3.11.14-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/finetrail/bin:$PATH

FROM base AS source
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/finetrail
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY domain ./domain
COPY handlers ./handlers
COPY projections ./projections
COPY gateway ./gateway
COPY gpu_agent ./gpu_agent
COPY adapters ./adapters
COPY finetrail ./finetrail
COPY examples ./examples

FROM source AS server-packages
RUN pip install -c constraints.txt '.[gateway,handlers,projections,tracing]'

FROM source AS agent-packages
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple \
        -c constraints.txt torch==2.13.0 \
    && pip install -c constraints.txt '.[agent,tracing]'

FROM base AS runtime
RUN groupadd --gid 10001 finetrail \
    && useradd --uid 10001 --gid finetrail --no-create-home --home-dir /var/lib/finetrail \
        --shell /usr/sbin/nologin finetrail \
    && install -d -m 0700 -o finetrail -g finetrail /var/lib/finetrail
ENV FINETRAIL_DATA_DIR=/var/lib/finetrail HOME=/var/lib/finetrail
WORKDIR /var/lib/finetrail
VOLUME /var/lib/finetrail
STOPSIGNAL SIGTERM
ENTRYPOINT ["finetrail"]

FROM runtime AS agent
COPY --from=agent-packages /opt/finetrail /opt/finetrail
USER 10001:10001
CMD ["agent"]

FROM runtime AS server
COPY --from=server-packages /opt/finetrail /opt/finetrail
USER 10001:10001
EXPOSE 8420
CMD ["--help"]
