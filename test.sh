#!/usr/bin/env bash
# Lint, types and tests, with their set-up. Arguments go to pytest: `bash test.sh -m 'not heavy'`.
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/env.sh" || exit
use_environment "$here/requirements/lock.txt" "$here/requirements.txt" "$here/requirements/dev.txt" || exit
cd "$here" && ruff check . && ruff format --check . && mypy && exec python -m pytest "$@"
