# syntax=docker/dockerfile:1.7
# The binary in a slim image: docker build -t fleetlog .
#
# Dependencies and build results live in caches of the builder, so that after a change only what changed is compiled.

FROM rust:1.95.0-slim-bookworm AS build
# As scripts/prerequisites.sh asks for; versions are those of the image's release of Debian.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake g++ libcurl4-openssl-dev libssl-dev make pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The toolchain of the image is the one of rust-toolchain.toml, whose components only developers need.
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p fleetlog-cli \
    && install -D target/release/fleetlog /out/usr/local/bin/fleetlog \
    && /out/usr/local/bin/fleetlog man --out /out/usr/local/share/man/man1

FROM debian:12.12-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="fleetlog" \
      org.opencontainers.image.description="The event log of a robot fleet: Kafka to Redis and TimescaleDB" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/lib/fleetlog --create-home fleetlog
COPY --from=build /out/ /
# Slot locks lie here; everything else may be read-only: docker run --read-only --tmpfs /var/lib/fleetlog:uid=10001,gid=10001,mode=0700
ENV FLEETLOG_RUN__STATE_DIR=/var/lib/fleetlog \
    FLEETLOG_RUN__HTTP_ADDRESS=0.0.0.0:9464 \
    FLEETLOG_PRESENCE__HTTP_ADDRESS=0.0.0.0:9465 \
    FLEETLOG_LOG__FORMAT=json
USER 10001:10001
EXPOSE 9464 9465
# /healthz by the binary itself: there is no curl here. A container of `fleetlog presence` asks `fleetlog health --presence` instead.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["fleetlog", "health"]
# SIGTERM drains (run.drain_deadline_ms, 8 s): give `docker stop` more than its 10 s where that is raised.
STOPSIGNAL SIGTERM
ENTRYPOINT ["fleetlog"]
CMD ["run"]
