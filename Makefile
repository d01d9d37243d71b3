# Each target installs what it needs on a fresh Debian 12/13 or Ubuntu 24.04 (as root), then does its job.
PY := .venv/bin/python
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
APT := clang libbpf1 libbpf-dev clang-format python3-venv python3-dev python3-seccomp iproute2 procps bpftool make gcc libc6-dev curl openssl

.PHONY: setup demo test bench lint clean peers
setup: build/.apt build/.venv build/.bcc build/.runsc bpf

build/.apt: Makefile
	@mkdir -p build
	@if dpkg-query -W -f='$${Status}\n' $(APT) 2>/dev/null | grep -qv 'install ok installed' || ! dpkg-query -W $(APT) >/dev/null 2>&1; then \
	  echo "holdfast: installing system packages: $(APT)"; \
	  $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $(APT) >build/apt.log 2>&1 || { tail build/apt.log; exit 1; }; fi
	@touch $@

# requirements.lock is made by: uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --extra dev --extra otel \
#   --python-version 3.11 pyproject.toml -o requirements.lock
build/.venv: build/.apt pyproject.toml requirements.lock
	@echo "holdfast: installing Python packages into .venv"
	@[ -x $(PY) ] || /usr/bin/python3 -m venv --system-site-packages .venv
	@.venv/bin/pip install --disable-pip-version-check -q -r requirements.lock 2>build/pip.log || { cat build/pip.log; exit 1; }
	@.venv/bin/pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e . 2>>build/pip.log || { cat build/pip.log; exit 1; }
	@touch $@

# The second loader (--loader bcc) compiles at start: BCC and some kernel's headers. Headers of the running kernel come first; without them
# any of the distribution's do, since the programs take structures' offsets from the running kernel's BTF. Optional: without it libbpf loads.
build/.bcc: build/.apt
	@if ! dpkg-query -W python3-bpfcc >/dev/null 2>&1; then echo "holdfast: installing python3-bpfcc"; \
	  DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends python3-bpfcc >>build/apt.log 2>&1 || echo "holdfast: no python3-bpfcc here: --loader bcc is not available"; fi
	@if ! [ -d /lib/modules/$$(uname -r)/build ] && ! ls -d /usr/src/linux-headers-* >/dev/null 2>&1; then \
	  for headers in linux-headers-$$(uname -r) linux-headers-$$(dpkg --print-architecture) linux-headers-generic; do \
	    if DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $$headers >>build/apt.log 2>&1; then \
	      echo "holdfast: installed $$headers for --loader bcc"; break; fi; done; fi
	@touch $@

# The second judge runs servers' twins under gVisor. Optional: without it the judge "sandbox" is unsure of every call.
build/.runsc: build/.apt setup/runsc.sh
	@$(SUDO) sh setup/runsc.sh >build/runsc.log 2>&1 || echo "holdfast: no runsc of 20240729 or newer here, so the sandbox is not available: $$(tail -n 1 build/runsc.log)"
	@touch $@

.PHONY: bpf
bpf: build/.apt
	@$(MAKE) -s -C bpf

demo: setup
	@$(PY) -m tests.demo

# The real clients and servers that the tests hold the gate against, and the peers of the benchmark.
peers: setup
	@command -v npm >/dev/null || { echo "holdfast: installing nodejs and npm"; DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends nodejs npm >>build/apt.log 2>&1; }
	@command -v nginx >/dev/null || { echo "holdfast: installing nginx-light"; DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends nginx-light >>build/apt.log 2>&1; }
	@command -v redis-server >/dev/null || { echo "holdfast: installing redis-server"; DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends redis-server >>build/apt.log 2>&1; }
	@sh tests/real/setup.sh npm mcp1

# Two at a time, but for what cannot run beside its own kind (tests/conftest.py). A short folder: sockets' paths are bounded.
test: peers
	@folder=$$(mktemp -d /tmp/hf.XXXXXX) && $(PY) -m pytest -q -n 2 --dist loadgroup --basetemp $$folder/t; code=$$?; rm -rf $$folder; exit $$code

bench: peers
	@command -v haproxy >/dev/null || { echo "holdfast: installing haproxy"; DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends haproxy >>build/apt.log 2>&1; }
	@command -v wrk >/dev/null && command -v sslsniff-bpfcc >/dev/null || { echo "holdfast: installing wrk and bpfcc-tools"; DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends wrk bpfcc-tools >>build/apt.log 2>&1; }
	@sh tests/real/setup.sh mitm
	@$(PY) -m tests.bench

lint: setup
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .
	@.venv/bin/mypy
	@clang-format --dry-run --Werror bpf/*.c bpf/*.h

clean:
	rm -rf build .venv enforcer/kernel/objects
