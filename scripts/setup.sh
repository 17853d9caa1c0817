# Sourced by the other scripts: makes .venv if it is missing or out of date, and puts it first in PATH.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
stamp=.venv/installed-$(cat pyproject.toml requirements.lock | sha256sum | cut -c1-12)
if [[ ! -e $stamp ]]; then
    echo "setting up .venv (several GB, once) ..."
    python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
    touch "$stamp"
fi
export PATH="$PWD/.venv/bin:$PATH"
