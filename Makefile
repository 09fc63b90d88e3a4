# What people run. What is for use is built with the profile `release`, what is only for checks with `quick`, which builds
# in half the time; llama.cpp is compiled once per profile.
CARGO := cargo
FLAGS := --release --locked
QUICK := --profile quick --locked
# rustup's place, for shells that were opened before Rust was installed.
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: run build test bench fmt fmt-check lint doc audit docker clean

## Installs what is missing, builds, and serves the built-in model on 127.0.0.1:11434.
run:
	@.ci/prepare build
	$(CARGO) run $(FLAGS) -- serve

## Builds target/release/arriero.
build:
	@.ci/prepare build
	$(CARGO) build $(FLAGS)

## Sets up what the tests need and runs them all.
test:
	@.ci/prepare test
	$(CARGO) test $(QUICK) --no-fail-fast
	@echo "make test: all tests passed"

## Measures, some minutes; LLAMA_SERVER=/path/of/llama-server and SGLANG_ROUTER=/path/of/sglang-router are compared with it
## as well.
bench:
	@.ci/prepare test
	$(CARGO) build $(FLAGS) --bins --examples
	$(CARGO) bench --locked --bench hot_paths
	$(CARGO) bench --locked --bench e2e
	$(CARGO) bench --locked --bench engine

fmt:
	$(CARGO) fmt

fmt-check:
	$(CARGO) fmt --check

## Clippy with warnings denied, with the engine and without.
lint:
	$(CARGO) clippy $(QUICK) --all-targets -- -D warnings
	$(CARGO) clippy $(QUICK) --all-targets --no-default-features -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(QUICK) --no-deps --lib

## Licences of all dependencies.
audit:
	.ci/audit

## The container image; `make docker BACKEND=cuda` for NVIDIA GPUs.
BACKEND := cpu
docker:
	docker build --build-arg BACKEND=$(BACKEND) --tag arriero:$(BACKEND) .

clean:
	$(CARGO) clean
