# make run     build the release binary and start the demo node
# make test    install what the tests need and run all of them
# make help    the rest

DATA ?= ../shared/data
SEEDS ?= 1000
AUDITS ?= 1,2,3,4,5
BASE ?= 0
CHURN ?= 600
PYTHON = .venv/bin/python

.PHONY: run check test test-embedded cluster test-real bench-live bench-cassandra audit sim fmt help

run: ## build the release binary and start the demo node: 500 synthetic symbols, live
	cargo build --release --bin tapeline
	./target/release/tapeline demo

test: python-env browser-env sdk-env cassandra-env redis-env nginx-env ## everything: units, properties, simulator, real nodes over both stores, foreign SDKs, the audit
	cargo test --workspace --all-targets
	cargo test --doc

test-embedded: python-env ## the quick one: what needs no database and no foreign SDK
	cargo test --workspace --lib --bins --test tidy --test sim --test it -- --skip cassandra::tests

check: ## formatting, lints and documentation, without a warning
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

test-real: python-env ## import and replay the data sets in DATA and check them: make test-real DATA=folder
	cargo build --release --bin tapeline
	$(PYTHON) tests/real/check.py --binary target/release/tapeline --data $(DATA)
	$(PYTHON) tests/real/live.py --binary target/release/tapeline --data $(DATA)

bench-live: redis-env nginx-env ## thousands of stream clients against a release node, beside Redis, nginx and send(2); then a resume storm, and churn
	cargo build --release --bin tapeline
	cargo build --release --package loadtest
	./target/release/loadtest live --binary target/release/tapeline --json bench-live.json
	./target/release/loadtest live --binary target/release/tapeline --profile storm
	./target/release/loadtest live --binary target/release/tapeline --profile churn --seconds $(CHURN) --kill-every 60

bench-cassandra: cassandra-env ## a release node over a real Cassandra, beside raw loops of its driver
	cargo build --release --bin tapeline
	cargo build --release --package loadtest
	./target/release/loadtest cassandra --binary target/release/tapeline --json bench-cassandra.json

cluster: cassandra-env redis-env nginx-env ## a region on this machine, to try it: Cassandra, Redis, two nodes, nginx
	cargo build --release --bin tapeline
	scripts/cluster

audit: python-env cassandra-env redis-env ## a region under faults, audited by what its clients wrote down: make audit AUDITS=1,2,3
	cargo build --bin tapeline
	$(PYTHON) tests/audit/workload.py --seeds $(AUDITS)

sim: ## more seeds of the simulator: make sim SEEDS=10000 BASE=0
	cargo test --test sim -- --seeds $(SEEDS) --base $(BASE)

fmt: ## format the source
	cargo fmt --all

.PHONY: python-env browser-env sdk-env cassandra-env redis-env nginx-env
python-env:
	scripts/python-env

browser-env:
	scripts/browser-env

sdk-env:
	scripts/sdk-env

cassandra-env:
	scripts/cassandra-env

redis-env:
	scripts/redis-env

nginx-env:
	scripts/nginx-env

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1: /'
