# The images of assistd and of its sandbox worker:
#
#   docker build --target assistd --tag assistd .
#   docker build --target assistd-sandbox --tag assistd-sandbox .
#
# Both are self-contained: they download nothing at run time.

FROM rust:1.95-bookworm AS build
# The sandbox worker is linked with the Python of Debian, which its image has, too.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ENV PYO3_PYTHON=/usr/bin/python3 \
    CARGO_PROFILE_RELEASE_STRIP=symbols
# The caches belong to the builder, so that the next build compiles only what has changed.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --package assistd --package assistd-sandbox \
 && install -D --target-directory=/out target/release/assistd target/release/assistd-sandbox


FROM debian:bookworm-slim AS python
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3-pip python3-venv \
 && rm -rf /var/lib/apt/lists/*


FROM python AS downloads
WORKDIR /downloads
COPY scripts/fetch_package scripts/pdfium scripts/pdfium.txt scripts/
# The scripts succeed without a download; an image must have it.
RUN scripts/pdfium \
 && test -e .venv/pdfium/libpdfium.so
COPY scripts/embedding_model scripts/embedding_model.txt scripts/
RUN scripts/embedding_model \
 && test -e .venv/models/all-minilm-l6-v2/model.safetensors


FROM python AS packages
COPY sandbox/requirements.txt /
# At the path at which sessions see it, as its scripts contain that path.
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --no-input --no-deps --require-hashes --only-binary :all: \
      --requirement /requirements.txt \
 && /opt/venv/bin/pip uninstall --yes --quiet pip setuptools


FROM debian:bookworm-slim AS assistd
COPY --from=downloads /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=downloads /downloads/.venv /opt/assistd/.venv
COPY --from=build /out/assistd /opt/assistd/assistd
# A new volume mounted at this folder inherits its owner.
RUN ln -s /opt/assistd/assistd /usr/local/bin/assistd \
 && install -d -o 10001 -g 10001 /var/lib/assistd
USER 10001:10001
WORKDIR /var/lib/assistd
ENV ASSISTD_LISTEN=0.0.0.0:8000 \
    ASSISTD_DATA_DIR=/var/lib/assistd
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s CMD ["assistd", "healthcheck"]
ENTRYPOINT ["assistd"]


FROM debian:bookworm-slim AS assistd-sandbox
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 libpython3.11 \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o 10002 -g 10002 /run/assistd-sandbox \
 && install -d /mnt/data
COPY --from=packages /opt/venv /opt/venv
COPY --from=build /out/assistd-sandbox /usr/local/bin/
USER 10002:10002
WORKDIR /
ENV ASSISTD_SANDBOX_PYTHON=/opt/venv/bin/python3 \
    ASSISTD_SANDBOX_LISTEN=unix:/run/assistd-sandbox/worker.sock
# On a busy machine, loading the Python packages takes a while.
HEALTHCHECK --interval=5s --timeout=5s --start-period=180s CMD ["assistd-sandbox", "ping"]
ENTRYPOINT ["assistd-sandbox"]
CMD ["serve"]
