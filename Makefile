# Two commands matter: `make detect IMAGES=photos/` and `make test`. Each sets up what it needs, once.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OUTPUT ?= out
# The newest pip shows what setuptools says of every editable installation.
PIP    := PYTHONWARNINGS="ignore:Editable installation" $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help detect test test-all test-pages test-cpus test-lowest test-newest lint typecheck bench benchmark-voc benchmark-ilsvrc docs docs-links dist clean

help:  ## Show this.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-16s %s\n", $$1, $$2}'

IMAGES ?= docs/photographs
detect: $(VENV)/.detect  ## Find objects in IMAGES=files, folders or globs; results in OUTPUT=out.
	$(BIN)/inception-rcnn detect $(IMAGES) --output "$(OUTPUT)" $(ARGS)

# Two processes with one thread each: threads inside an operation would wait for each other's cores.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal
# Of the files that ARGS names none may have a test of that kind: status 5.
NONE := $(if $(ARGS), || [ $$? = 5 ])

MARKS ?= not slow and not pages
test: $(VENV)/.dev  ## Run the tests that a change needs, in a few minutes.
	$(PYTEST) -m "$(MARKS)" $(ARGS)$(NONE)

# Needs Chromium and its driver (Debian: chromium, chromium-driver), and npm for axe-core; tests without them are skipped.
test-pages: $(VENV)/.dev  ## Open the pages in a browser: do they work, and for everybody?
	@test -d build/axe/node_modules || npm install --silent --no-fund --prefix build/axe axe-core@4 || true
	$(BIN)/python -m pytest -m pages -rs $(or $(ARGS),tests/detect/runs/page tests/eval/report)$(NONE)

# All in one go: the last test of a kind would leave a core idle.
test-all: test-pages  ## Run all of them, with those that take longer.
	@$(MAKE) test MARKS="not pages" PYTEST="$(PYTEST) --durations 10"

test-cpus: $(VENV)/.dev  ## Run the numeric tests as other processors and numbers of threads would.
	$(BIN)/python tests/cpus.py $(ARGS)

# Each in an environment of its own, made anew. PYTHON chooses the interpreter; EXTRAS=dev leaves out torch.
EXTRAS ?= dev,train
test-lowest:  ## Run the quick tests with the lowest versions that pyproject.toml allows.
test-newest:  ## Run the quick tests with the newest versions that there are.
test-lowest: RESOLUTION := lowest-direct
test-newest: RESOLUTION := highest
test-lowest: BIN = $(VENV)-lowest/bin
test-newest: BIN = $(VENV)-newest/bin
test-lowest test-newest: test-%: $(VENV)-uv/bin/uv
	rm -rf $(VENV)-$*
	$(PYTHON) -m venv $(VENV)-$*
	$< pip install --quiet --python $(BIN)/python --resolution $(RESOLUTION) --editable '.[$(EXTRAS)]'
	$(PYTEST) -m "not slow" $(ARGS)$(NONE)

lint: $(VENV)/.dev  ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(VENV)/.dev  ## Check types.
	mkdir -p build/link && ln -sfn ../.. build/link/inception_rcnn
	MYPYPATH=build/link $(BIN)/mypy

bench: $(VENV)/.dev  ## Measure speed: proposals, scoring, the whole, on the sample photographs.
	$(BIN)/python benchmarks/pipeline.py

# DEVKIT is VOCdevkit/VOC2007, or the folder of ILSVRC's detection set; LIST is one of its lists of pictures, ARGS options of detect.
benchmark-voc: $(VENV)/.detect  ## From DEVKIT=VOCdevkit/VOC2007 to its table; of LIST=test.
	PATH="$(abspath $(BIN)):$$PATH" benchmarks/voc2007.sh "$(DEVKIT)" "$(or $(LIST),test)" "$(OUTPUT)" $(ARGS)

benchmark-ilsvrc: $(if $(TRAIN),$(VENV)/.dev,$(VENV)/.detect)  ## From DEVKIT=ILSVRC to its table, by MODEL=FILE; TRAIN=1 trains it.
	PATH="$(abspath $(BIN)):$$PATH" TRAIN=$(TRAIN) benchmarks/ilsvrc_det.sh "$(DEVKIT)" "$(MODEL)" \
		"$(or $(LIST),$(if $(TRAIN),val2,val))" "$(OUTPUT)" $(ARGS)

# Pages, anchors and names that are not there are warnings, and a warning is an error.
SPHINX = $(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going --conf-dir docs/site --doctree-dir build/doctrees
docs: $(VENV)/.dev  ## Build the documentation as a site in build/site; needs no network.
	$(SPHINX) . build/site
	@echo "build/site/index.html"

docs-links: $(VENV)/.dev  ## Check the documentation's links to other hosts.
	$(SPHINX) --builder linkcheck . build/links

dist: $(VENV)/.dev  ## Build the source distribution, and from that the wheel, into dist/.
	rm -rf dist
	$(BIN)/python -m build --no-isolation

clean:  ## Remove the environment and everything made; keeps cache/.
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest $(VENV)-uv build dist out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamp files: made when an installation ended well, so that the next call starts at once.
$(BIN)/python:
	@$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip --version >/dev/null || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make virtual environments; install its venv module (Debian: python3-venv)"; exit 1; }

$(VENV)-uv/bin/uv:
	$(PYTHON) -m venv $(VENV)-uv
	$(VENV)-uv/bin/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.detect: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what detection needs into $(VENV) (about a minute)"
	$(PIP) --editable '.[detect]'
	@touch $@

# uv installs in a fifth of pip's time, but does not read pip's settings, of package indexes for example: then pip installs.
$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python $(VENV)-uv/bin/uv
	@echo "installing what development needs into $(VENV) (some minutes)"
	$(VENV)-uv/bin/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,train,docs]' \
		|| $(PIP) --editable '.[dev,train,docs]'
	@touch $@ $(VENV)/.detect
