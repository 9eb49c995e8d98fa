# make demo and make test are all that a new user needs; both do their own set-up.
PYTHON ?= python3
VENV := .venv
COMPAT := .venv-compat
RUN := $(VENV)/bin
# Most tests wait for processes of their own, so that two at a time take little more than one.
TWO := -n 2 --dist worksteal

.PHONY: demo test setup check compat bench clean

demo: $(VENV)/.ready
	$(RUN)/voxblink2 demo

test: $(VENV)/.ready
	$(RUN)/python -m pytest $(TWO)

setup: $(VENV)/.ready

$(VENV)/.ready: setup.cfg pyproject.toml constraints.txt tools/setup.sh
	PYTHON="$(PYTHON)" sh tools/setup.sh $(VENV) ".[dev]"
	touch $@

check: $(VENV)/.ready
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/python -m pytest $(TWO)

# The last version of datasets that runs scripts, in an environment of its own.
compat: $(COMPAT)/.ready
	$(COMPAT)/bin/python tests/compat/run_script.py

$(COMPAT)/.ready: setup.cfg pyproject.toml tests/compat/constraints.txt tools/setup.sh
	PYTHON="$(PYTHON)" CONSTRAINTS=tests/compat/constraints.txt sh tools/setup.sh $(COMPAT) "."
	touch $@

bench: $(VENV)/.ready
	$(RUN)/python benchmarks/crop_audio.py
	$(RUN)/python benchmarks/crop_video.py
	$(RUN)/python benchmarks/embed.py
	$(RUN)/python benchmarks/fetch.py
	$(RUN)/python benchmarks/import_time.py
	$(RUN)/python benchmarks/index_boxes.py
	$(RUN)/python benchmarks/ledger.py
	$(RUN)/python benchmarks/read.py
	$(RUN)/python benchmarks/scoring.py

clean:
	rm -rf $(VENV) $(COMPAT) voxblink2-demo
