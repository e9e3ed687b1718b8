# Everything sets up what is missing first (see scripts/setup.sh) and skips what is done.
#   make demo [QUERY="the red mug"] [MODEL=libero]    ask the running node about a recorded clip
#   make libero-setup                  add LIBERO's world to the environment (1 GB)
#   make libero [LIBERO_ARGS="--model M"]  ask eight questions about LIBERO's scenes
#   make figures [FIGURES="web"]       draw the pictures of the README and the manual anew
#   make test [PYTEST_ARGS="-k name"]  run the tests but the slow ones
#   make test-slow                     run the slow ones: trainings, the browser, the robot, engines
#   make fuzz [FUZZ_SECONDS=60]        feed every reader with damaged input, for so long each
#   make check                         format, lint, types, structure, words and the fast tests
#   make docs                          build the documentation as a site, into build/site
#   make study [STUDY_ARGS="--only rl"] train and compare the arms of docs/study.md
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup libero-setup libero figures demo check test test-slow fuzz audit fast-tests lint layers words house tables \
  docs links check-docs format study clean

# By way of the environment, so that a quote in the question stays a quote.
export QUERY
export MODEL
export PYTEST_ARGS
export LIBERO_ARGS
export FIGURES
export STUDY_ARGS
IN_ENV := scripts/in_env.sh
# They need neither ROS nor the weights of a model.
FAST_TESTS := tests/setup tests/cli/test_main.py tests/core/completion tests/core/depth tests/core/images \
  tests/core/test_ambiguity.py tests/core/test_geometry.py tests/core/test_prompt.py \
  tests/core/test_types.py tests/examples tests/training/rewards

help:
	@echo 'make setup | libero-setup | libero | figures | demo [QUERY="…"] | check | test [PYTEST_ARGS="…"] | test-slow | lint | layers | docs | format | study | clean'

setup:
	@bash scripts/setup.sh

libero-setup: setup
	@$(IN_ENV) python scripts/libero_setup.py

libero: libero-setup
	@$(IN_ENV) python -m examples.libero_questions $$LIBERO_ARGS

figures: setup
	@$(IN_ENV) python scripts/draw_figures.py $$FIGURES

demo: setup
	@$(IN_ENV) python -m segzero_cli demo $${MODEL:+--model "$$MODEL"}

PYTEST := python -m pytest -n logical --maxprocesses 4 --dist loadgroup
test: setup
	@$(IN_ENV) $(PYTEST) -m "not slow and not gpu" $$PYTEST_ARGS

test-slow: setup
	@$(IN_ENV) $(PYTEST) -m "slow and not gpu" $$PYTEST_ARGS

# Each target for so many seconds.
fuzz: setup
	@$(IN_ENV) python -m tests.fuzz --seconds $${FUZZ_SECONDS:-60}

# Known holes of the pinned versions; needs a network. The ROS wheels are not on PyPI and are left out.
audit:
	@python3 -m venv build/audit && build/audit/bin/pip install -q pip-audit
	@grep -v '^ros-\|^#' constraints.txt > build/audit/pins.txt
	@build/audit/bin/pip-audit --no-deps --disable-pip -r build/audit/pins.txt

lint: setup
	@$(IN_ENV) ruff check .
	@$(IN_ENV) ruff format --check .
	@$(IN_ENV) mypy

layers: setup
	@$(IN_ENV) python scripts/check_layers.py

words: setup
	@$(IN_ENV) python scripts/check_words.py

# Draws docs/architecture.md again.
house: setup
	@$(IN_ENV) python scripts/draw_house.py

# Writes the tables of docs/ that come from the code.
tables: setup
	@$(IN_ENV) python scripts/write_tables.py

# In an environment of its own, which needs nothing of segzero's. The variable silences an advertisement of another tool.
docs:
	@[ -x build/docs-env/bin/python ] || python3 -m venv build/docs-env
	@build/docs-env/bin/python -m pip install -q --disable-pip-version-check -r docs/requirements.txt
	@NO_MKDOCS_2_WARNING=1 build/docs-env/bin/python -m mkdocs build --strict
	@echo "python -m http.server -d build/site    shows it"

# Asks for the addresses that the documentation links to; needs the network.
links:
	@python3 scripts/check_links.py

# Runs the commands of README.md and docs/tutorials/ in a copy of this checkout.
check-docs: setup
	@$(IN_ENV) python scripts/check_docs.py

fast-tests: setup
	@$(IN_ENV) python -m pytest -q -n 2 -k "not bundled" $(FAST_TESTS)

check: lint layers words
	@$(IN_ENV) python scripts/draw_house.py --check
	@$(MAKE) --no-print-directory fast-tests

format: setup
	@$(IN_ENV) ruff check --fix .
	@$(IN_ENV) ruff format .

# Hours; stopped at any moment, it goes on from there. STUDY_ARGS: see python -m training.study --help
study: setup
	@$(IN_ENV) python -m training.study run $$STUDY_ARGS

clean:
	rm -rf .venv build install log .pytest_cache .mypy_cache .ruff_cache .hypothesis segzero.egg-info
	rm -f demo/*.png demo/*.json demo/node.log
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
