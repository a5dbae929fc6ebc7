# Everything is installed in the first stage; the second has neither pip's cache nor a compiler, and runs as nobody special.
FROM python:3.12-slim AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/runstream
ENV PATH=/opt/runstream/bin:$PATH

WORKDIR /src
# the lock first: as long as it stays the same, so does this layer
COPY requirements.lock ./
RUN pip install --no-deps -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY graphs graphs
RUN pip install --no-deps .


FROM python:3.12-slim

RUN useradd --system --uid 10001 --home-dir /srv --shell /usr/sbin/nologin runstream \
    && install -d -o runstream -g runstream /data
COPY --from=build /opt/runstream /opt/runstream
ENV PATH=/opt/runstream/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

WORKDIR /srv
# the example graphs; mount your own project over /srv, or build an image of your own from this one
COPY langgraph.json ./
COPY graphs graphs

USER runstream
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.getenv('RUNSTREAM_PORT', '8000') + '/health', timeout=2)"]
CMD ["runstream", "serve", "--host", "0.0.0.0", "--data-dir", "/data"]
