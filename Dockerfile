# docker build --build-arg VERSION=0.1.0 --build-arg REVISION=$(git rev-parse HEAD) --tag reelay .
# docker run --read-only --tmpfs /tmp --cap-drop ALL --volume reelay:/data --publish 8080:8080 --env FAL_KEY \
#     --env REELAY_BOOTSTRAP_KEY reelay
FROM python:3.13-slim AS build
WORKDIR /app
RUN pip install --no-cache-dir uv==0.13.8
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1
# What changes seldom comes first: the dependencies alone are one layer.
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --frozen --no-dev --no-install-project \
    && uv export --frozen --no-dev --quiet --format cyclonedx1.5 --output-file sbom.cdx.json
COPY proxy ./proxy
RUN uv sync --frozen --no-dev --no-editable

FROM python:3.13-slim
RUN groupadd --gid 10001 reelay \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin reelay \
    && install --directory --owner 10001 --group 10001 --mode 0700 /data
# What it is made of, from the lock file: CycloneDX.
COPY --from=build /app/sbom.cdx.json /app/sbom.cdx.json
COPY --from=build /app/.venv /app/.venv
COPY routing_rules.yaml /app/routing_rules.yaml
ENV PATH=/app/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 REELAY_RULES=/app/routing_rules.yaml REELAY_HOST=0.0.0.0
# By number, so that whoever forbids root can see that it is none.
USER 10001:10001
# From here the usual paths, data/reelay.db and data/videos, lie in the volume. Nothing else is written but /tmp.
WORKDIR /
VOLUME /data
EXPOSE 8080
# Not through a proxy, whatever the environment says of one.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import http.client, os, sys; probe = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('REELAY_PORT') or 8080), timeout=2); probe.request('GET', '/healthz'); sys.exit(probe.getresponse().status != 200)"]
ENTRYPOINT ["reelay"]
CMD ["serve"]
# Last, for they change with every build.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Reelay" \
      org.opencontainers.image.description="A provider-routing proxy for AI video behind OpenAI's Videos API" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="docker.io/library/python:3.13-slim" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
