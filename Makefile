# A convenience: every target is one command that works without make.
PYTHON ?= python3

.PHONY: help setup run test lint format

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## install what is missing
	$(PYTHON) manage.py setup

run: ## serve on http://127.0.0.1:8000
	$(PYTHON) manage.py up

test: ## run all checks and tests
	$(PYTHON) manage.py test

lint: ## check style and types
	$(PYTHON) manage.py lint

format: ## format the code
	$(PYTHON) manage.py format
