# shellcheck shell=bash
# A Python with Confluent's client, for the tests that read events as a stranger would. Not a server: only installed.

PYTHON_HOME="$STACK/python"

python_install() {
  cmp -s "$SCRIPTS/stack/python/requirements.txt" "$PYTHON_HOME/requirements.txt" && return 0
  say "python: making a virtual environment with the Confluent client (once)"
  rm -rf "$PYTHON_HOME"
  { python3 -m venv "$PYTHON_HOME" &&
    "$PYTHON_HOME/bin/pip" install -q -r "$SCRIPTS/stack/python/requirements.txt"; } \
    >"$LOGS/python-install.log" 2>&1 ||
    { cat "$LOGS/python-install.log" >&2; die "python: pip failed, its output is above"; }
  cp "$SCRIPTS/stack/python/requirements.txt" "$PYTHON_HOME/requirements.txt"
}

python_start() { :; }
python_await() {
  remember "$ENV_FILE" FLEETLOG_TEST_PYTHON "$PYTHON_HOME/bin/python"
  say "python: ready in $PYTHON_HOME"
}
