# Stands in for the official image rust:1.95-bookworm. The context is a toolchain.
FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ gcc libc6-dev make pkg-config \
 && rm -rf /var/lib/apt/lists/*
COPY . /usr/local/
ENV CARGO_HOME=/usr/local/cargo
