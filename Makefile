# The commands of this project; `make` alone lists them. After `make setup` plain cargo commands work as well.
#
# Everything is built with --release, tests, lint and docs too, so that the C++ of torch-sys compiles once and not twice.
# Where libtorch is comes from .cargo/config.toml, which points at .libtorch and leaves a LIBTORCH of your own alone.
# With LIBTORCH_USE_PYTORCH set, torch-sys asks Python and looks at neither, so nothing has to be undone here.

CARGO ?= cargo

# More arguments for `rl-train train`, as in `make train ARGS="--seed 2"`.
ARGS ?=

# What is off by default, so that it is tested, linted and documented too.
FEATURES = --features rl-minibatch/progress,rl-replay/npz,rl-replay/arrow,rl-replay/minari

.PHONY: help setup setup-tests setup-peers setup-box2d setup-mujoco setup-python build train test test-features test-gymnasium-rs bench bench-peers bench-loader bench-learner bench-envs bench-instructions lint doc golden clean

help: ## lists these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1 \t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## installs libtorch into .libtorch, unless you have it (LIBTORCH_KIND=slim|full asks for one)
	@scripts/setup

setup-python: ## makes .venv-python, whose environments --env gym:ID reaches (0.5 GB; for builds with --features python)
	@scripts/setup-python

setup-tests: # installs the Python packages that the tests compare with
	@scripts/setup-tests

setup-mujoco: ## brings MuJoCo's library and models into .mujoco, for the feature `mujoco` (17 MB)
	@scripts/setup-mujoco

setup-box2d: ## installs what the feature box2d (LunarLander) needs to be built: cmake, unless you have it (100 MB)
	@command -v cmake >/dev/null || scripts/setup-tests cmake

build: setup ## builds the rl-train binary
	$(CARGO) build --release

train: build ## trains DQN on CartPole-v1 and evaluates it (ARGS="..." adds arguments)
	$(CARGO) run --release --quiet -- train --algo dqn --env CartPole-v1 --config configs/dqn-cartpole.toml $(ARGS)

test: setup setup-tests ## runs all tests
	$(CARGO) test --release --workspace $(FEATURES) --no-fail-fast

test-gymnasium-rs: ## checks and tests the adapter for gymnasium-rs, a workspace of its own
	@scripts/test-gymnasium-rs

test-features: ## lints, documents and tests the environments that are off by default (features box2d, mujoco, python)
	@scripts/test-features

bench: setup ## runs all benchmarks
	$(CARGO) bench --workspace --bench '*'

setup-peers: # installs other libraries' replay buffers into benches/peers (7 GB; REVERB=1 adds Reverb, 3 GB)
	@scripts/setup-peers

bench-peers: build setup-peers ## measures other libraries' replay buffers in turn with ours, and writes docs/benchmarks.md
	@scripts/bench-peers

bench-loader: ## measures our loader, PyTorch's and TensorFlow's in turn, and writes docs/benchmarks.md (installs 3 GB)
	@scripts/bench-loader

bench-learner: build ## measures learners of other libraries in turn with ours, and writes docs/benchmarks.md (installs 7 GB)
	@scripts/bench-learner

bench-envs: build ## measures our environments, EnvPool's and Gymnasium's in turn, and writes docs/benchmarks.md (installs 1 GB)
	@scripts/bench-envs

bench-instructions: ## counts the instructions of the inner loops under valgrind
	@scripts/bench-instructions

lint: setup ## checks formatting and runs clippy, warnings being errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace $(FEATURES) --all-targets -- -D warnings

doc: setup ## builds the documentation, warnings being errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --no-deps --workspace $(FEATURES)

golden: ## makes the golden values of the tests anew (installs all of PyTorch, 5 GB)
	@scripts/setup-tests golden
	.venv-golden/bin/python tests/golden/envs.py
	.venv-golden/bin/python tests/golden/minatar_games.py
	.venv-golden/bin/python tests/golden/mujoco_tasks.py
	.venv-golden/bin/python tests/golden/lunar_lander.py
	.venv-golden/bin/python tests/golden/wrappers.py
	.venv-golden/bin/python tests/golden/learn.py
	.venv-golden/bin/python tests/golden/norm.py
	.venv-golden/bin/python tests/golden/optim.py
	.venv-golden/bin/python tests/golden/schedules.py
	.venv-golden/bin/python tests/golden/loss.py
	.venv-golden/bin/python tests/golden/amp.py
	.venv-golden/bin/python tests/golden/data.py
	.venv-golden/bin/python tests/golden/collate.py

clean: ## removes what was built; libtorch and the Python environments stay
	$(CARGO) clean
