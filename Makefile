# make demo and make test are all that a new user needs; both do their own set-up.
PYTHON ?= python3
VENV := .venv
COMPAT := .venv-compat
DOCS := .venv-docs
BROWSE := .venv-browse
OLDEST := .venv-oldest
OLDEST_TOOLS := pytest pytest-timeout pytest-xdist hypothesis psutil scikit-learn
# What is run with the oldest versions: a file of each part that depends on them, and no other tool.
OLDEST_TESTS := tests/archive/test_gzip_stream.py \
	tests/scoring/test_det.py tests/scoring/test_names.py tests/scoring/test_score_files.py \
	tests/release/test_annotation.py tests/test_redaction.py tests/test_records.py \
	tests/sources/test_reasons.py tests/store/test_ledger.py tests/media/test_clock.py \
	tests/cli/test_completion.py
RUN := $(VENV)/bin
# Two processes take a file of tests at a time, the longest first (tests/durations.json), so that what
# a file prepares for its tests is prepared once.
PYTEST := $(RUN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=15
NEWCOMER := PYTHONPATH=tools:tests $(PYTHON) -m newcomer
# Seconds that one test may take; tests/support/session_plan.py lists exceptions with reasons.
BUDGET ?= 20

.PHONY: demo test test-all test-oldest newcomer tutorials dist-check durations setup check lint compat docs browse-test bench clean

demo: $(VENV)/.ready
	$(RUN)/voxblink2 demo

# The default tier.
test: $(VENV)/.ready
	$(PYTEST) --budget $(BUDGET)

# And what is exhaustive: tests with the marker slow, ten times as many examples of each property, and
# what has environments of its own. Some slow tests use Gradio from that of browse-test.
test-all: $(VENV)/.ready .transformers-tests/.ready $(BROWSE)/.ready
	$(PYTEST) -m "slow or not slow" --hypothesis-profile slow
	$(MAKE) browse-test dist-check test-oldest
	$(NEWCOMER) --skip-tests

# The tests that transformers has for all models are in its sources alone.
.transformers-tests/.ready: constraints.txt $(VENV)/.ready
	rm -rf $(@D)
	$(RUN)/python -m pip download -q --no-binary :all: --no-deps -c constraints.txt -d $(@D) transformers
	cd $(@D) && tar -xzf transformers-*.tar.gz --wildcards '*/tests/*.py' && rm transformers-*.tar.gz
	touch $@

# What a newcomer types, in a clone and with an environment of its own: the commands of README.md, its
# blocks and those of the tutorials, one after the other; what is printed is compared.
newcomer:
	$(NEWCOMER)

# The same with the environment of this checkout, without the tests and the longest tutorials.
tutorials: $(VENV)/.ready
	$(NEWCOMER) --here --skip-tests 1 2 4 6 7

# Record how long each file takes.
durations: $(VENV)/.ready
	$(PYTEST) --write-durations

setup: $(VENV)/.ready

$(VENV)/.ready: setup.cfg pyproject.toml constraints.txt tools/setup.sh
	PYTHON="$(PYTHON)" sh tools/setup.sh $(VENV) ".[dev]"
	touch $@

check: lint test

lint: $(VENV)/.ready
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/hadolint Dockerfile

# The last version of datasets that runs scripts, in an environment of its own.
compat: $(COMPAT)/.ready
	$(COMPAT)/bin/python tests/compat/run_script.py

$(COMPAT)/.ready: setup.cfg pyproject.toml tests/compat/constraints.txt tools/setup.sh
	PYTHON="$(PYTHON)" CONSTRAINTS=tests/compat/constraints.txt sh tools/setup.sh $(COMPAT) "."
	touch $@

# The documentation site in build/site. Its reference is made from the code, which the environment of
# the site does not have.
docs: $(VENV)/.ready $(DOCS)/.ready
	PYTHONPATH=tools $(RUN)/python -m documentation.reference
	PYTHONPATH=tools NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build
	$(DOCS)/bin/python tools/documentation/check_site.py build/site

$(DOCS)/.ready: tools/documentation/requirements.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install -q --disable-pip-version-check -r $<
	touch $@

# The page of a store, in Chromium; and faults of accessibility in it, in a report, and in the site.
# Gradio takes other versions than the rest: an environment of its own.
browse-test: $(BROWSE)/.ready docs
	[ -n "$$CHROMIUM" ] || command -v chromium >/dev/null || sh tools/debian.sh chromium Chromium
	$(BROWSE)/bin/python -m pytest tests/browse/*_in_chromium.py

$(BROWSE)/.ready: setup.cfg pyproject.toml tests/browse/constraints.txt tools/setup.sh
	PYTHON="$(PYTHON)" CONSTRAINTS=tests/browse/constraints.txt sh tools/setup.sh $(BROWSE) ".[browse-test]"
	touch $@

# The lower bounds of setup.cfg, in an environment of its own. Old packages warn of newer ones.
test-oldest: $(OLDEST)/.ready
	$(OLDEST)/bin/python -m pytest -n 2 --dist loadfile -W default $(OLDEST_TESTS)

$(OLDEST)/.ready: setup.cfg pyproject.toml tests/oldest/constraints.txt tools/setup.sh
	PYTHON="$(PYTHON)" CONSTRAINTS=tests/oldest/constraints.txt sh tools/setup.sh $(OLDEST) "."
	$(OLDEST)/bin/python -m pip install -q -c tests/oldest/constraints.txt $(OLDEST_TOOLS)
	touch $@

# Builds sdist and wheel, and tries the wheel in an environment that has nothing else.
dist-check:
	$(PYTHON) tools/check_distribution.py

bench: $(VENV)/.ready
	$(RUN)/python benchmarks/archive.py
	$(RUN)/python benchmarks/augment.py
	$(RUN)/python benchmarks/browse.py
	$(RUN)/python benchmarks/cluster.py
	$(RUN)/python benchmarks/crop_audio.py
	$(RUN)/python benchmarks/crop_video.py
	$(RUN)/python benchmarks/embed.py
	$(RUN)/python benchmarks/embed_mixed.py
	$(RUN)/python benchmarks/export.py
	$(RUN)/python benchmarks/fetch.py
	$(RUN)/python benchmarks/import_time.py
	$(RUN)/python benchmarks/index.py
	$(RUN)/python benchmarks/index_boxes.py
	$(RUN)/python benchmarks/intervals.py
	$(RUN)/python benchmarks/ledger.py
	$(RUN)/python benchmarks/memory.py
	$(RUN)/python benchmarks/opening.py
	$(RUN)/python benchmarks/purity.py
	$(RUN)/python benchmarks/order.py
	$(RUN)/python benchmarks/read.py
	$(RUN)/python benchmarks/scoring.py
	$(RUN)/python benchmarks/transcripts.py
	$(RUN)/python benchmarks/view.py

clean:
	rm -rf $(VENV) $(COMPAT) $(DOCS) $(BROWSE) $(OLDEST) build .test-media voxblink2-demo
