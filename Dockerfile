# check=error=true
FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /realtime ./cmd/realtime

# One file that runs, and whom it trusts with TLS: no shell, nothing that is written to.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /realtime /realtime
USER 65532:65532
EXPOSE 8080 8081 9090
# Ready, or degraded; not while it drains. It finds the node by REALTIME_OPS_ADDR.
HEALTHCHECK --interval=5s --timeout=3s --start-period=40s --retries=3 CMD ["/realtime", "healthcheck"]
ENTRYPOINT ["/realtime"]
CMD ["serve"]
