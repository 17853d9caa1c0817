# Sourced by the other scripts: makes .venv if it is missing or out of date, and puts it first in PATH.
# Ctrl-C and SIGTERM sent to a script reach the command that it runs, whose exit code becomes the script's.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
refuse() { echo "error: $*" >&2; exit 2; }

need_method() {  # PACKAGE FILE METHOD: whether the package has a method of that name
    local known=("$1"/*/"$2")
    known=("${known[@]%/*}")
    [[ ${3:-} =~ ^[a-z0-9_]+$ && -f $1/$3/$2 ]] || refuse "${3:-}: no such method; choose from ${known[*]##*/}"
}

stoppable() {
    set -m  # a group of its own, which a terminal's Ctrl-C does not reach: it gets one signal, not two
    command "$@" &
    set +m
    local child=$! code
    trap "kill -INT $child" INT
    trap "kill -TERM $child" TERM
    until code=0; wait $child || code=$?; ! kill -0 $child 2> /dev/null; do :; done
    trap - INT TERM
    return $code
}
python() { stoppable python "$@"; }
bash() { stoppable bash "$@"; }

stamp=.venv/installed-$(cat pyproject.toml requirements.lock | sha256sum | cut -c1-12)
if [[ ! -e $stamp ]]; then
    echo "setting up .venv (several GB, once) ..."
    python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
    touch "$stamp"
fi
export PATH="$PWD/.venv/bin:$PATH"
