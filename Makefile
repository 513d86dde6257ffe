# Every target works from a fresh clone. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install test check demo docs discovery shaping anonymity examples bench tables chaos fuzz prove ui-test man dist clean

help:            ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

install: $(STAMP) ## make .venv with the project and its development tools

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) tools/make_venv.py $(VENV)
	@touch $@

test: $(STAMP)   ## the test suite (8 minutes at most, no root, no network)
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(STAMP)  ## ruff, mypy --strict, import rules (1 minute)
	$(BIN)/ruff check src tests tests_real bench demo fuzz tools examples
	$(BIN)/ruff format --check src tests tests_real bench demo fuzz tools examples
	$(BIN)/mypy
	$(BIN)/mypy examples
	$(BIN)/python -m pytest tests/test_architecture.py

demo: $(STAMP)   ## two nodes and everything between them, as separate processes (90 s at most)
	$(BIN)/python -m demo

docs: $(STAMP)   ## the documentation as HTML below out/docs; a warning is an error
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .[docs]
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs out/docs

discovery: $(STAMP)  ## real DNS-over-HTTPS servers and a real router (root; apt install unbound miniupnpd nftables iproute2)
	$(BIN)/python -m pytest tests_real/test_doh_unbound.py tests_real/test_port_mapping.py

carriers: $(STAMP)  ## carriers beside real servers and clients, judged and probed (the packages that .ci/run installs; 10 minutes)
	$(BIN)/python -m pytest tests_real/test_carrier_*.py

shaping: $(STAMP)  ## lengths, gaps and SYNs of real links as tshark sees them, and plain frames dissected (apt install tshark; 1 minute)
	$(BIN)/python -m pytest tests_real/test_dissector.py tests_real/test_shaping_wire.py

anonymity: $(STAMP)  ## nodes over private networks of real Tor and I2P daemons (apt install tor i2pd iproute2); 6 minutes at most
	@mkdir -p out
	@$(BIN)/python -m pytest -v --durations=0 --durations-min=1 tests_real/test_tor.py tests_real/test_tor_namespace.py \
		>out/anonymity-tor.txt 2>&1 & tor=$$!; \
	$(BIN)/python -m pytest -v --durations=0 --durations-min=1 -n 3 --dist load tests_real/test_i2p.py tests_real/test_dual_homed.py \
		tests_real/test_i2p_network.py; i2p=$$?; \
	wait $$tor; tor=$$?; cat out/anonymity-tor.txt; exit $$((tor + i2p))

ui-test: $(STAMP)  ## the dashboard in real Chromium; pictures in out/ui (apt install chromium; 90 s)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .[ui]
	$(BIN)/python -m pytest tests_real/test_dashboard.py
	@echo "pictures: $(CURDIR)/out/ui"

examples: $(STAMP)  ## every program of examples/, and every command of the tutorial
	@for program in examples/*.py; do echo "== $$program"; timeout 120 $(BIN)/python $$program || exit 1; done
	$(BIN)/python tools/run_tutorial.py

man: $(STAMP)    ## packaging/man/obscura.1 anew from the commands' help
	$(BIN)/python tools/make_man.py

dist: $(STAMP)   ## wheel and sdist below dist/, and the wheel run by a new user in an empty environment (package index)
	rm -rf dist
	$(BIN)/python -m build -q
	$(BIN)/python tools/check_dist.py dist/*.whl

bench: $(STAMP)  ## every figure as JSON lines, a table and a picture below out/bench; ONLY=a,b runs some, INTO=folder
	$(BIN)/python -m bench --into $(or $(INTO),out/bench) $(if $(ONLY),--only $(ONLY))

tables: $(STAMP)  ## the published precision tables beside the simulator's; RUNS=n, ONLY=text
	$(BIN)/python tools/tables.py $(if $(RUNS),--runs $(RUNS)) $(if $(ONLY),--only $(ONLY))

chaos: $(STAMP)  ## networks of the real core under seeded faults; SEEDS=n FIRST=n, then the listed bugs must be found (BUGS=no leaves that out)
	$(BIN)/python tools/chaos.py --seeds $(or $(SEEDS),40) --first $(or $(FIRST),1)
	$(if $(filter no,$(BUGS)),,$(BIN)/python tools/chaos.py --bugs)

fuzz: $(STAMP)   ## every decoder and carrier under Atheris (Linux); SECONDS=n and INPUTS=n of each target at most, ONLY=a,b, SEED=n
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .[fuzz]
	$(BIN)/python -m fuzz --seconds $(or $(SECONDS),60) $(if $(INPUTS),--inputs $(INPUTS)) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY))

prove: $(STAMP)  ## the acceptance of everything at full size, and docs/results.md (hours; needs what .ci/run installs by apt); ONLY=a,b
	$(BIN)/python tools/prove.py $(if $(ONLY),--only $(ONLY))

clean:           ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis out dist
