# One image for every container of Larder: static programs, two users, the root certificates, nothing else.
# `make image` assembles the like of it without an engine. On nodes the agent runs as uid 19500 and the installer as
# uid 0 without capabilities; the controller and the gateway run as uid 65532.
FROM docker.io/library/rust:1.95.0-alpine AS build
# The image's own toolchain: rust-toolchain.toml would fetch the components that only `make lint` needs.
ENV RUSTUP_TOOLCHAIN=1.95.0 CARGO_PROFILE_RELEASE_STRIP=debuginfo
RUN apk add --no-cache musl-dev ca-certificates
WORKDIR /src
COPY . .
RUN cargo build --release --locked --workspace --exclude larder-tests --bins \
    && find target/release -maxdepth 1 -type f -name 'larder-*' -perm -0100 -exec install -D -t /out {} + \
    && install -D -m 0644 -t /out/etc/ssl/certs /etc/ssl/certs/ca-certificates.crt \
    && printf '%s:x:%d:%d::/:/nologin\n' root 0 0 larder 19500 19500 nonroot 65532 65532 >/out/etc/passwd \
    && printf '%s:x:%d:\n' root 0 larder 19500 nonroot 65532 >/out/etc/group \
    && printf 'hosts: files dns\n' >/out/etc/nsswitch.conf

FROM scratch
COPY --from=build /out/ /
COPY LICENSE /
ENV PATH=/
USER 19500:19500
ENTRYPOINT ["/larder-agent"]
