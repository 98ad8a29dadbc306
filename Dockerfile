# One image for both containers of the DaemonSet: static programs, the system's root certificates, nothing else.
# The agent runs as uid 19500; the installer's container runs /larder-installer as uid 0, without capabilities.
FROM docker.io/library/rust:1.95.0-alpine AS build
# The image's own toolchain: rust-toolchain.toml would fetch the components that only `make lint` needs.
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN apk add --no-cache musl-dev
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p larder-agent -p larder-installer --bins \
    && install -D -t /out target/release/larder-agent target/release/larder-installer

FROM gcr.io/distroless/static-debian12
COPY --from=build /out/ /
COPY LICENSE /
USER 19500:19500
ENTRYPOINT ["/larder-agent"]
