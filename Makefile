# Every command sets up what it needs; all can be run again. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help demo test cluster psql stop bench lint package clean
ARGS ?=

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## set up, bill an hour of real LLM traffic for three customers and explain it
	@scripts/demo $(ARGS)

test: ## all tests; ARGS='pure golden' for some stages (see scripts/test)
	@scripts/test $(ARGS)

cluster: ## build, install into a private Postgres, start it; prints the connection string
	@scripts/cluster start

psql: ## psql on that cluster; SQL on standard input and options in ARGS work too
	@scripts/psql $(ARGS)

stop: ## stop every server of this checkout
	@scripts/cluster stop

bench: ## benchmarks
	@scripts/bench $(ARGS)

lint: ## formatting, clippy, dependencies, shell scripts, what the domain may not use
	@scripts/lint

package: ## a tarball and a .deb in target/package, so that servers need no Rust
	@scripts/package $(ARGS)

clean: ## stop the servers and delete everything built in this checkout
	@scripts/clean
