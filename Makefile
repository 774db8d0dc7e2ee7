# make demo   see the agent at work on loopback
# make test   every check there is, as CI runs them (root; Debian)
# make agent  the static release binary

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X vpnprobe/internal/version.Version=$(VERSION)
FUZZTIME ?= 1s

.PHONY: agent demo test packages check unit fuzz lab bench clean

agent:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o agent ./cmd/agent

demo: agent
	./agent demo

test: packages check unit fuzz lab

# What the tests need beside Go, by Debian's names.
packages:
	./integration/packages.sh

check:
	@files=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$files" ]; then echo "gofmt: $$files"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o agent ./cmd/agent
	@size=$$(stat -c %s agent); echo "agent: $$size bytes"; test $$size -lt 25000000

unit:
	./internal/unit.sh $$($(GO) list ./... | grep -v /integration)

fuzz:
	./internal/fuzz.sh $(FUZZTIME)

lab: export VPNPROBE_LAB_REQUIRED = $(if $(CI),1)
lab:
	$(GO) test -count=1 -timeout 40m -parallel 3 -v ./integration/...

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

clean:
	rm -f agent
