SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --warn-undefined-variables

BIN := $(CURDIR)/.tmp/bin
# Pinned tools; the version is part of the file's name, so another pin installs anew. buf.gen.yaml names the plugin's.
BUF := $(BIN)/buf-1.75.0
GRPC_PLUGIN := $(BIN)/protoc-gen-go-grpc-1.6.2
GOLANGCI_LINT := $(BIN)/golangci-lint-2.15.0
GOVULNCHECK := $(BIN)/govulncheck-1.9.0
version = $(lastword $(subst -, ,$(notdir $@)))
# Directories with tests in JavaScript.
NPM := $(dir $(wildcard */package.json */*/package.json */*/*/package.json))
# What the snippets in Python need.
PYTHON := python3-grpcio python3-protobuf python3-websockets protobuf-compiler protobuf-compiler-grpc libprotobuf-dev
# What the protos must stay compatible with: the last release, else where this branch left the main one, else the commit
# before this one.
BASE ?= $(shell git describe --tags --abbrev=0 2>/dev/null || \
	{ b=$$(git merge-base HEAD origin/HEAD 2>/dev/null || git merge-base HEAD main 2>/dev/null) && [ "$$b" != "$$(git rev-parse HEAD)" ] && echo "$$b"; } || \
	git rev-parse -q --verify HEAD^ || true)
ARGS ?=
# How long each fuzz target runs, and which advisories govulncheck asks: file:///path of a copy where there is no network.
FUZZTIME ?= 10s
VULNDB ?= https://vuln.go.dev
need = command -v $(1) >/dev/null || { echo "make $@ needs $(1): apt-get install $(2)" >&2; exit 1; }

.PHONY: help
help: ## Show the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: ## Run one node for development
	@echo "building, the first time takes about a minute; sessions then connect to ws://127.0.0.1:8080/ws/general"
	@go run ./cmd/realtime serve --dev

.PHONY: build
build: ## Build bin/realtime, static
	CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o bin/realtime ./cmd/realtime

.PHONY: test
test: ## Run all tests: race detector, random order, fuzz seeds, browser
	@$(call need,gcc,gcc libc6-dev)
	@$(call need,node,nodejs npm)
	@$(call need,chromium,chromium)
	@$(call need,redis-server,redis-server)
	@[ -n "$${CI-}" ] || /usr/bin/python3 -c 'import grpc, websockets' 2>/dev/null || echo 'docs/snippets/python is not run: apt-get install $(PYTHON)'
	@for d in $(NPM); do npm ci --prefix $$d --no-audit --no-fund; done
	go test -race -shuffle=on -timeout=8m ./...
	go test -count=1 -run=Allocat ./internal/... # what the race detector would spoil

.PHONY: check-deploy
check-deploy: export PATH := $(PATH):/usr/sbin
check-deploy: ## Check deploy/: alerts, dashboard, Compose, image, manifests, balancer, Redis
	@$(call need,promtool,prometheus)
	@$(call need,haproxy,haproxy)
	@$(call need,redis-server,redis-server)
	promtool check config deploy/prometheus.yml
	promtool test rules deploy/alerts_test.yml
	haproxy -c -f deploy/haproxy.cfg
	cd deploy/check && go test -count=1 ./...

.PHONY: race
race: ## Run the Go tests five times with the race detector, each time in a new order
	go test -race -shuffle=on -count=5 ./...

# How many schedules of faults make sim runs, and the seed it begins with.
SCHEDULES ?= 10000
FIRST ?= 1

.PHONY: sim
sim: ## Run nodes over a model of Redis through SCHEDULES of faults
	go test -count=1 -run=Sim -timeout=2h ./internal/redis/sim -schedules $(SCHEDULES) -first $(FIRST)

.PHONY: sim-mutations
sim-mutations: ## Put faults into the code, each of which the simulation must find
	go test -count=1 -run=Mutants -timeout=2h -v ./internal/redis/sim -mutations

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME, one after the other
	@grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9]*' cmd internal pkg web | sort | while IFS=: read -r file func; do \
		echo "$${func#func } in $$(dirname "$$file")"; \
		go test -run='^$$' -fuzz="^$${func#func }\$$" -fuzztime=$(FUZZTIME) "./$$(dirname "$$file")" </dev/null; done

.PHONY: vulncheck
vulncheck: $(GOVULNCHECK) ## Ask which known advisories reach code that is called
	$(GOVULNCHECK) -db=$(VULNDB) ./...
	cd deploy/check && $(GOVULNCHECK) -db=$(VULNDB) -test ./...

.PHONY: bench
bench: ## Run the benchmarks
	go test -run='^$$' -bench=. -benchmem ./...

# What checks RFC 6455 can be pointed at it. More of it: ARGS='-echo.path=portable -echo.bytes=65536 -echo.fragments=256'.
.PHONY: echo
echo: ## Serve an echo over the edge's own WebSockets, for conformance suites
	@go test -count=1 -v -timeout=0 -run='^TestEcho$$' ./internal/edge -echo=127.0.0.1:9001 $(ARGS)

.PHONY: faults
faults: build ## Break Redis under two nodes for five minutes and judge what their sessions got
	@$(call need,redis-server,redis-server)
	bin/realtime bench --nodes 2 --sessions 100 --rooms 4 --rate 500 --publishers 8 --duration 100s --fault-every 10s \
		--fault kill-pubsub,kill-all,restart,restart-empty,failover,blackhole,partition,slow,pause
	bin/realtime bench --nodes 2 --sessions 100 --rooms 4 --rate 500 --publishers 8 --duration 50s --fault-every 49s --fault-for 30s --fault restart-empty
	bin/realtime bench --nodes 2 --sessions 100 --rooms 4 --rate 2000 --publishers 16 --duration 90s --fault-every 89s --fault-for 60s --fault pause

.PHONY: lint
lint: $(BUF) $(GOLANGCI_LINT) ## Check code, protos and the house rules
	$(BUF) lint
	$(BUF) format --diff --exit-code
	$(GOLANGCI_LINT) run ./...
	cd deploy/check && $(GOLANGCI_LINT) run ./...
	tools/house-rules
	go mod tidy -diff

.PHONY: generate
generate: $(BUF) $(GRPC_PLUGIN) ## Generate gen/ from proto/
	$(BUF) generate

.PHONY: check-generate
check-generate: generate ## Check that gen/ is what proto/ says and that proto/ breaks nobody
	@changed=$$(git status --porcelain gen); [ -z "$$changed" ] || { echo "gen/ differs from proto/: make generate, commit"; echo "$$changed"; exit 1; } >&2
	@if [ -n "$(BASE)" ] && git cat-file -e '$(BASE):proto' 2>/dev/null; then \
		echo "$(notdir $(BUF)) breaking --against $(BASE)"; $(BUF) breaking --against '.git#ref=$(BASE)'; \
	else echo "no protos in $(or $(BASE),the history): nothing to stay compatible with"; fi

# Prebuilt through npm in seconds; from source, two minutes of CPU, where there is no npm.
$(BUF):
	mkdir -p $(BIN)
	if npm install --prefix .tmp/npm --no-save --no-audit --no-fund @bufbuild/buf@$(version) >/dev/null 2>&1; \
	then ln -sf ../npm/node_modules/.bin/buf $@; \
	else GOBIN=$(BIN) go install github.com/bufbuild/buf/cmd/buf@v$(version) && mv $(BIN)/buf $@; fi

$(GRPC_PLUGIN):
	GOBIN=$(BIN) go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v$(version) && mv $(BIN)/protoc-gen-go-grpc $@

$(GOLANGCI_LINT):
	GOBIN=$(BIN) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$(version) && mv $(BIN)/golangci-lint $@

$(GOVULNCHECK):
	GOBIN=$(BIN) go install golang.org/x/vuln/cmd/govulncheck@v$(version) && mv $(BIN)/govulncheck $@
