# `make demo` and `make test` need Python 3.11 or newer and nothing else; both live in .venv.
PYTHON ?= python3
BIN := .venv/bin
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

# Installation compiles no bytecode (--no-compile, below), since most files are never imported; Python
# compiles and caches the others at their first import. Without that cache every process would compile torch.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long lint types compile changelog site coverage fuzz bench clean

demo: .venv/ready
	$(BIN)/bygones demo --out bygones-demo

test: .venv/ready
	$(MAKE) --jobs 2 types lint compile
	$(BIN)/pytest -n 2 -q -m "not long"

test-long: .venv/ready
	$(BIN)/pytest -n 2 -q -m long

lint: .venv/ready
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/lint-imports

types: .venv/ready
	$(BIN)/pyright

# Compiles what the tests import, beside the checks of types: else both of pytest's processes would.
compile: .venv/ready
	-$(BIN)/pytest --collect-only -qq > /dev/null

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch .venv/ready

# Prints what has changed since the last release; RELEASE=1 moves it into CHANGELOG.md.
changelog: .venv/ready
	$(BIN)/towncrier build --version $(VERSION) $(if $(RELEASE),--yes,--draft)

# The documentation as a site in site/, with its packages (the extra docs).
site: .venv/ready
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict --quiet

coverage: .venv/ready
	$(BIN)/python -m benchmarks.coverage

# Ten minutes; see docs/reliability.md.
fuzz: .venv/ready
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev,fuzz]'
	$(BIN)/python -m benchmarks.fuzz --minutes 10

bench: .venv/ready
	$(BIN)/python -m benchmarks.speed

clean:
	rm -rf .venv bygones-demo site
