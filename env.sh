# Sourced by the scripts. `use_environment FILE...` puts a Python environment that holds these requirements on PATH: an active
# virtual environment is used as it is; otherwise .venv is made here. What is installed already stays.
# `run_module MODULE ARGUMENT...` becomes that module of this project, in the Python that $PYTHON names, else python3.
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
unfinished=.resnest-unfinished  # in .venv, until it is whole
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"

# Of any script, whatever is installed.
if [ "${1:-}" = --version ]; then
    sed -n 's/^__version__ = "\(.*\)"$/resnest \1/p' "$here/ResNeSt/__init__.py"
    exit
fi

run_module() {
    local python="${PYTHON:-python3}"
    "$python" -c 'import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, ("numpy", "PIL", "tqdm"))))' || {
        echo "error: $python lacks numpy, pillow or tqdm; activate an environment that has them, such as $here/.venv," \
            "or pip install -r requirements.txt (on an Ascend host: requirements/npu.txt)" >&2
        exit 3
    }
    exec "$python" -m "$@"
}

use_environment() {
    if [ -z "${VIRTUAL_ENV:-}" ]; then
        [ -f "$here/.venv/bin/activate" ] && [ ! -e "$here/.venv/$unfinished" ] || make_environment || return
        . "$here/.venv/bin/activate" || return
    fi
    # One stamp per content of the requirements: nothing is asked of pip while they have not changed.
    local stamp
    stamp="$VIRTUAL_ENV/.resnest-$(cat "$@" | cksum | tr -d ' ')"
    if [ ! -e "$stamp" ]; then
        echo "installing into $VIRTUAL_ENV (the first time takes minutes; PyTorch is the large one):"
        install "$@" && touch "$stamp"
    fi
}

make_environment() {
    local python="${PYTHON:-python3}"
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "error: $python is not Python 3.11 or newer; name one: PYTHON=/path/to/python3.11 bash ${0##*/}" >&2
        return 1
    fi
    if [ -e "$here/.venv/$unfinished" ]; then
        rm -rf "$here/.venv"  # half of what a killed run made
    elif [ -e "$here/.venv" ] || [ -L "$here/.venv" ]; then
        echo "error: $here/.venv is there and no virtual environment; move it away, or activate one of your own" >&2
        return 1
    fi
    echo "making $here/.venv"
    mkdir "$here/.venv" && touch "$here/.venv/$unfinished" && "$python" -m venv "$here/.venv" && rm "$here/.venv/$unfinished"
}

install() {
    # One after the other: pip checks hashes for all packages of a call or for none.
    for file in "$@"; do
        python -m pip install --disable-pip-version-check --progress-bar off -r "$file" |
            sed -nu 's/^Collecting \([^ ]*\).*/  \1/p; s|^Processing [^ ]*/\([^/ ]*\).*|  \1|p; s/^Installing collected packages.*/  unpacking/p'
        [ "${PIPESTATUS[0]}" -eq 0 ] || return
    done
}
