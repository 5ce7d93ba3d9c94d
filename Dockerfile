# docker build -t reelay . && docker run -p 8080:8080 -v reelay:/data -e FAL_KEY -e REELAY_BOOTSTRAP_KEY reelay
FROM python:3.13-slim AS build
WORKDIR /app
RUN pip install --no-cache-dir uv==0.13.8
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
# What changes seldom comes first: the dependencies alone are one layer.
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --frozen --no-dev --no-install-project
COPY proxy ./proxy
RUN uv sync --frozen --no-dev --no-editable

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home reelay && install --directory --owner reelay /data
COPY --from=build /app/.venv /app/.venv
COPY routing_rules.yaml /app/routing_rules.yaml
ENV PATH=/app/.venv/bin:$PATH REELAY_RULES=/app/routing_rules.yaml REELAY_HOST=0.0.0.0
USER reelay
# From here the usual paths, data/reelay.db and data/videos, lie in the volume.
WORKDIR /
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ.get(\"REELAY_PORT\", 8080)}/healthz', timeout=2)"]
ENTRYPOINT ["reelay"]
CMD ["serve"]
