# What the project does, by name. The logic is in pytest, mkdocs and proof/.
PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
PAGES := docs README.md CONTRIBUTING.md
# Blocks run beside each other in one pytest, tests in several: those of a page in one.
TESTS := tests --numprocesses auto --dist loadgroup

.PHONY: help serve test site check bench seeds

help: ## show this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 10

serve: .venv/installed ## prove what is not proved, serve on 127.0.0.1:8000 (PORT=), reload on change
	-$(BIN)/pytest docs
	$(BIN)/mkdocs serve --dev-addr 127.0.0.1:$(PORT)

test: .venv/installed ## run every block and every test, browser tests included
	$(BIN)/pytest $(PAGES)
	$(BIN)/pytest $(TESTS)
	$(BIN)/pytest --seed 1 --ignore-glob 'docs/*.py' $(PAGES)

site: .venv/installed ## prove, then build the site strictly into site/
	$(BIN)/pytest docs
	$(BIN)/mkdocs build --strict --site-dir .cache/site
	rm -rf site && mv .cache/site site
	$(BIN)/python -m proof check site

check: .venv/installed ## what to run before a pull request: format, lint, types, blocks, strict build
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pytest $(PAGES)
	$(BIN)/mkdocs build --strict --site-dir .cache/check

bench: .venv/installed ## measure what the engine costs
	$(BIN)/python benchmarks/engine.py

seeds: .venv/installed ## repeat every experiment with three other seeds
	$(BIN)/python benchmarks/seeds.py

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[check,test]' --constraint constraints.txt
	touch $@
