FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /realtime ./cmd/realtime

FROM scratch
COPY --from=build /realtime /realtime
USER 65532:65532
EXPOSE 8080 9090 8081
ENTRYPOINT ["/realtime"]
CMD ["serve"]
