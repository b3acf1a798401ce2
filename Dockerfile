# Tollway in a container: one program, the libraries that it is linked to, and CA roots.
#
#   docker build -t tollway .                  the gateway
#   docker build -t tollway-sim --target sim . the same, and the simulated backend (docs/simulator.md)
#
# Needs BuildKit, as every Docker since 23 has. The network is needed for the base image and for
# crates.io. Nothing here names an architecture: amd64 and arm64 are built where they run, or with
# `docker buildx build --platform linux/amd64,linux/arm64`.
ARG RUST_IMAGE=rust:1.95-slim-bookworm

# The dependencies: built from the lock file and empty programs, so that this layer, by far the
# slowest, stays cached until a dependency changes.
FROM ${RUST_IMAGE} AS dependencies
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /build
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY benches/instructions/Cargo.toml benches/instructions/
COPY benches/layout benches/layout
COPY tests/fuzz/Cargo.toml tests/fuzz/
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    mkdir -p src/bin/codex-sim; \
    touch src/lib.rs tests/fuzz/lib.rs; \
    echo 'fn main() {}' | tee src/main.rs src/bin/codex-sim/main.rs benches/pool.rs; \
    cargo build --release --locked --bins; \
    rm -r src benches

# The gateway. Sources are older than what was built from the empty programs; touched, they count.
FROM dependencies AS build
COPY benches benches
COPY migrations migrations
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    touch src/lib.rs src/main.rs src/bin/codex-sim/main.rs; \
    cargo build --release --locked --bin tollway

# What the last stage holds. `nsswitch.conf`: names are looked up in /etc/hosts first.
FROM build AS files
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN install -D -t /image/usr/local/bin target/release/tollway; \
    ldd target/release/tollway | grep -o '/[^ ]*' | while read -r library; do \
        install -D "$library" "/image$library"; \
    done; \
    install -D -m 0644 -t /image/etc/ssl/certs /etc/ssl/certs/ca-certificates.crt; \
    echo 'tollway:x:65532:65532:Tollway:/data:/sbin/nologin' >/image/etc/passwd; \
    echo 'tollway:x:65532:' >/image/etc/group; \
    echo 'hosts: files dns' >/image/etc/nsswitch.conf; \
    install -d -m 0700 /owned/data; \
    install -d -m 0755 /image/etc/tollway; \
    install -d -m 1777 /image/tmp

FROM build AS build-sim
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo build --release --locked --bin codex-sim

FROM scratch AS runtime
COPY --from=files /image /
COPY --from=files --chown=65532:65532 /owned /
# In a container the listeners are reached from outside it: what is published decides who gets in.
# The admin API wants an admin key; port 9464 wants none and stays inside.
ENV PATH=/usr/local/bin \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    TOLLWAY_DATA_DIR=/data \
    TOLLWAY_SERVER__LISTEN=0.0.0.0:8787 \
    TOLLWAY_ADMIN__LISTEN=0.0.0.0:8788 \
    TOLLWAY_SERVER__OPS_LISTEN=0.0.0.0:9464
USER 65532:65532
WORKDIR /data
VOLUME /data
STOPSIGNAL SIGTERM
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="Tollway" \
      org.opencontainers.image.description="A container-first, multi-tenant gateway for a team's ChatGPT/Codex accounts" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}"

# The simulated backend for demonstrations. It holds the gateway too, whose health check it uses.
FROM runtime AS sim
COPY --from=build-sim /build/target/release/codex-sim /usr/local/bin/codex-sim
EXPOSE 8790
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s \
    CMD ["/usr/local/bin/tollway", "healthcheck", "--url", "http://127.0.0.1:8790/sim/healthz"]
ENTRYPOINT ["/usr/local/bin/codex-sim"]
CMD ["--listen", "0.0.0.0:8790"]

FROM runtime AS gateway
# The API, the admin API, operations (/healthz, /readyz, /metrics).
EXPOSE 8787 8788 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/tollway", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/tollway"]
CMD ["serve"]
