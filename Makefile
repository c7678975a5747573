# The recipes a person runs, and CI runs the same. `make help` lists them.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help demo story test chaos mutants model fuzz bench bench-full criterion instructions bounds month docs stack stop clean fmt lint

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

demo: ## start everything, import a recording, simulate a fleet, prove that nothing is missing or doubled
	@scripts/demo.sh

story: ## what people do, told by doing it: make story NAME=dead-letters (docs/stories/)
	@NAME="$(NAME)" scripts/story.sh

test: ## all checks and tests, on the local stack
	@scripts/test.sh

model: | build-parts ## the core explored exhaustively, millions of states; and that it finds every guarantee broken on purpose
	cargo test --workspace --locked --test model -- --include-ignored --nocapture --test-threads 1
	cargo test --workspace --locked --features fleetlog-model/mutants --test model_mutants -- --nocapture

chaos: ## faults by seed: make chaos SEEDS=100 goes on where it stopped, make chaos SEED=7 FAMILY=zombie replays one
	@SEEDS="$(SEEDS)" SEED="$(SEED)" FAMILY="$(FAMILY)" JOBS="$(JOBS)" scripts/chaos.sh seeds

mutants: ## every guarantee broken on purpose, and which check notices
	@MUTANT="$(MUTANT)" scripts/chaos.sh mutants

fuzz: ## hostile input, as many for each target as INPUTS says (1000000 takes an hour and a half); SEED=n for others
	@scripts/fuzz.sh

bench: ## fleetlog beside bare clients, pairs in one run: writes bench/RESULTS.md and bench/results.json (25 min)
	@bench/run.sh

bench-full: ## the same with more rounds, and by units, partitions, batches and rows in the table
	@bench/run.sh --full --rounds 5

criterion: | build-parts ## the pure parts by the clock, without a server: decode, fold, rows (1 min and a release build)
	cargo bench --locked -p fleetlog-bench --features criterion --bench pure

instructions: ## the pure parts in instructions an item, beside bench/instructions.json; UPDATE=1 writes that (a release build and 1 min)
	@bench/instructions.sh $(if $(UPDATE),--update)

bounds: ## the memory of `fleetlog run`: backlogs of 1 and 5 million, 100,000 units, 1 MB events, stores that hang (15 min)
	@bench/bounds.sh

month: ## a month of a million tasks: ledger, aggregates and views against what was planned, and times of queries (10 min)
	@bench/month.sh $(TASKS)

docs: | build-parts ## write the pages that are made from schemas, code and figures (docs/events.md, docs/capacity.md)
	@cargo run --quiet --locked -p fleetlog-codec --example events_page > docs/events.md.new
	@mv docs/events.md.new docs/events.md
	@cargo run --quiet --locked -p fleetlog-capacity --example capacity_page > docs/capacity.md.new
	@mv docs/capacity.md.new docs/capacity.md

stack: ## start Kafka, Redis, PostgreSQL, a schema registry and TimescaleDB (WASM) in .stack/
	@scripts/stack.sh up --with registry,pglite,python

stop: ## stop the demo's projectors and the servers; data stay
	@scripts/demo.sh stop
	@scripts/stack.sh down

clean: ## stop, and remove .stack/ with all data (build results stay: cargo clean)
	@scripts/demo.sh stop
	@scripts/stack.sh clean

fmt: ## format the code
	cargo fmt --all

lint: | build-parts ## formatting and lints, as make test has them
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

.PHONY: build-parts
build-parts: # what compiling needs, where it is missing
	@scripts/prerequisites.sh build
