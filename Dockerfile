# syntax=docker/dockerfile:1
# docker build -t tailwater .
# docker run -v ./tailwater.toml:/etc/tailwater/tailwater.toml:ro tailwater
#
# OpenSSL is the image's own (docs/decisions/0014): its mends come with the base image.
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
# The manifest names these; none of them is built.
COPY benches benches
COPY tests/it/main.rs tests/it/main.rs
# Dependencies stay in caches of the builder, so a change of our own sources builds those alone.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    LIBZ_SYS_STATIC=1 cargo build --locked --release --bin tailwater --features "${FEATURES}" \
    && strip -o /tailwater target/release/tailwater

# glibc, libgcc, OpenSSL 3 and the certificates of public authorities; no shell.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /tailwater /usr/bin/tailwater
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
