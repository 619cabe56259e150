# syntax=docker/dockerfile:1
# docker build -t tailwater .
# docker run -v ./tailwater.toml:/etc/tailwater/tailwater.toml:ro tailwater
#
# OpenSSL is the build image's (docs/decisions/0018): its mends come with the next build.
ARG RUST=1-slim-bookworm

FROM rust:${RUST} AS build
# More of Cargo's features, such as oidc.
ARG FEATURES=
# zlib's headers are left out on purpose: it is linked in then, and the last stage needs none.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake g++ libssl-dev make perl pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY schemas/domain-event.schema.json schemas/domain-event.schema.json
# The manifest names these; none of them is built.
COPY benches benches
COPY tests/it/main.rs tests/it/main.rs
ARG TARGETARCH
# Dependencies stay in caches of the builder, so a change of our own sources builds those alone. Cargo
# judges by times, and those of another clone may be older than the cache.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target,id=tailwater-target-${TARGETARCH} \
    find src schemas -type f -exec touch {} + \
    && LIBZ_SYS_STATIC=1 cargo build --locked --release --bin tailwater --features "${FEATURES}" \
    && strip -o /tailwater target/release/tailwater
# What the program is linked to, the certificates of public authorities, a user without rights.
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN mkdir -p /image/usr/bin /image/etc /image/tmp \
    && cp /tailwater /image/usr/bin/tailwater \
    && ldd /tailwater | grep -o '/[^ ]*' | xargs cp --parents --dereference -t /image \
    && cp --parents /etc/ssl/certs/ca-certificates.crt /image \
    && echo 'hosts: files dns' > /image/etc/nsswitch.conf \
    && echo 'tailwater:x:65532:65532::/tmp:/nonexistent' > /image/etc/passwd \
    && chmod 1777 /image/tmp

FROM scratch
COPY --from=build /image /
ENV TAILWATER_CONFIG=/etc/tailwater/tailwater.toml \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# By number: a platform that asks for it can see that this is not root.
USER 65532:65532
# Fails where the settings do not hold, the database does not answer, or the slot is another
# source's. How the pipeline is stands in what it prints. It asks both servers, so not often.
HEALTHCHECK --interval=60s --timeout=45s --start-period=60s --retries=3 \
    CMD ["/usr/bin/tailwater", "status", "--json"]
# A stop ends within 5 s; Docker waits for 10.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/tailwater"]
CMD ["run"]
