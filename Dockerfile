# A node: docker build -t tapeline . && docker run -p 8080:8080 -v tapeline:/var/lib/tapeline tapeline
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin tapeline

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/tapeline --create-home tapeline
COPY --from=build /build/target/release/tapeline /usr/local/bin/tapeline
USER 10001
VOLUME /var/lib/tapeline
EXPOSE 8080
ENV TAPELINE__NODE__DATA=/var/lib/tapeline TAPELINE__HTTP__LISTEN=0.0.0.0:8080
ENTRYPOINT ["tapeline"]
CMD ["serve"]
