#!/usr/bin/env bash
# `make story NAME=dead-letters`: a story of docs/stories/, told by doing it on the local stack; prints each command with
# what it said, and fails where something is not as the story tells.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=stack/common.sh
source scripts/stack/common.sh

known() { ls docs/stories/*.md | sed 's|.*/||; s|\.md$||'; }

name="${NAME-}"
if ! known | grep -qxF -- "$name"; then
  say "usage: make story NAME=<name>, one of:"
  known | sed 's/^/  /' >&2
  exit 2
fi

scripts/stack.sh up --with python
[[ -n ${SKIP_BUILD-} ]] || scripts/build_fault_injection.sh
load_env
exec cargo test --workspace --locked --test stories -- --exact "${name//-/_}::story" --ignored --nocapture
