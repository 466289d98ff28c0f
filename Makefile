# `make demo` and `make test` are all that a fresh machine needs (Rust and Python 3). Afterwards plain cargo works too.

PYTHON ?= python3
TORCH  := 2.13.0

.PHONY: demo test quick cluster-test build lint libtorch clean

demo: build
	target/release/selftrace demo

build: libtorch
	cargo build --release

test: libtorch
	cargo test --release
	@if .venv/bin/python -c 'import pytest, pandas, pyarrow' 2>/dev/null; then .venv/bin/python -m pytest -q python/tests; \
	else echo "python/tests: skipped; pip install './python[test]' in .venv lets them run"; fi

# What reads a store and makes its tables, tested without a model: seconds once it is built.
QUICK := words:: table:: stats:: series:: onset:: measure:: evidence:: compare::

quick: libtorch
	cargo test --release --lib -- $(QUICK)

# Under a real Slurm on this machine, in five to eleven minutes beside the training of a demo; needs root, slurm-wlm and munge (tests/cluster/README.md).
cluster-test: build
	tests/cluster/run.sh

lint: libtorch
	cargo fmt --check
	cargo clippy --release --all-targets -- -D warnings

# libtorch comes from the PyTorch wheel that the pinned `tch` expects, unless LIBTORCH or LIBTORCH_USE_PYTORCH says otherwise. Without
# an NVIDIA GPU only the two CUDA libraries are installed that libtorch_cpu itself is linked to; with one, all of them. TORCH_INDEX is the
# address of another index of wheels, for another CUDA: `make TORCH_INDEX=https://download.pytorch.org/whl/...`.
ifeq ($(LIBTORCH)$(LIBTORCH_USE_PYTORCH),)
libtorch: .libtorch/.ready-$(TORCH)
else
libtorch:
endif

.libtorch/.ready-$(TORCH):
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "libtorch: fetching the PyTorch wheel, several hundred MB, once; pip says how far it is"
	if [ -n "$(TORCH_INDEX)" ]; then \
	    .venv/bin/pip install --disable-pip-version-check --index-url "$(TORCH_INDEX)" torch==$(TORCH); \
	elif nvidia-smi >/dev/null 2>&1 || test -e /dev/nvidiactl; then \
	    .venv/bin/pip install --disable-pip-version-check torch==$(TORCH); \
	else \
	    .venv/bin/pip install --disable-pip-version-check --no-deps torch==$(TORCH) 'nvidia-cuda-runtime==13.*' 'nvidia-cuda-cupti==13.*'; \
	fi
	ln -sfn "$$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch" .libtorch
	touch $@

clean:
	rm -rf target .venv .libtorch
