# The agent alone in an image: static, not root.
#
#   docker build --tag vpnprobe .
#   docker run --network host --cap-add NET_ADMIN --volume /etc/vpnprobe:/etc/vpnprobe:ro vpnprobe
#
# It has to share the gateway's network (--network host). NET_RAW and NET_ADMIN
# are on the file, since a user other than root gets none from --cap-add: that
# only allows them. NET_RAW is allowed by default. Where one is not allowed the
# kernel refuses to start the file ("operation not permitted"): build
#   docker build --target plain --tag vpnprobe:plain .
# then, which needs none and says what it cannot see.
#
# CAP_BPF is not on the file: it would have to be allowed everywhere. Without it
# the agent listens by packet sockets (capture mode ring). As root it has what is
# allowed, so that --user 0 --cap-add NET_ADMIN --cap-add BPF counts ESP within
# the kernel.
FROM golang:1.26-alpine AS build
RUN apk add --no-cache libcap-setcap
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X vpnprobe/internal/version.Version=$VERSION" -o /out/plain/agent ./cmd/agent \
 && mkdir -p /out/capable /out/state \
 && cp /out/plain/agent /out/capable/agent \
 && setcap cap_net_raw,cap_net_admin+ep /out/capable/agent

FROM scratch AS base
COPY --from=build --chown=65532:65532 /out/state /var/lib/vpnprobe
VOLUME /var/lib/vpnprobe
USER 65532:65532
EXPOSE 9793
ENTRYPOINT ["/agent"]
CMD ["run"]

FROM base AS plain
COPY --from=build /out/plain/agent /agent

FROM base
COPY --from=build /out/capable/agent /agent
