#!/bin/sh
# Makes .venv and installs both distributions into it: sh tools/setup_environment.sh hosted|run|test
# Called by the Makefile; needs a Python of at least 3.11 and nothing else.
set -eu
cd "$(dirname "$0")/.."

case "${1:-}" in
hosted) extras="anthropic,ollama,openai,server" ;;
run) extras="anthropic,huggingface,ollama,openai,server" ;;
test) extras="anthropic,dev,huggingface,ollama,openai,ray,server" ;;
*)
    echo "usage: sh tools/setup_environment.sh hosted|run|test" >&2
    exit 2
    ;;
esac

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "No Python of at least 3.11 found (tried: ${PYTHON:-python3 python3.14 ... python3.11})." >&2
    echo "Install one, or name it: make run PYTHON=/path/to/python3.12" >&2
    return 1
}

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    # Debian and Ubuntu ship Python without what a virtual environment is made of.
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "$python cannot make virtual environments: its modules venv and ensurepip are a package of their own." >&2
        echo "On Debian and Ubuntu: apt-get install python$version-venv" >&2
        exit 1
    fi
    echo "Making .venv with $("$python" --version)"
    "$python" -m venv .venv
fi

size="up to 3 GB, most of it PyTorch"
quiet=""
if [ "$1" = hosted ]; then
    size="about 25 MB" quiet="--quiet"
fi
echo "Installing what '$1' needs into .venv; the first time this downloads $size"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip setuptools
# One command for both distributions, so that no index is asked for our own names; the pinned setuptools builds them, whose
# warnings about editable installations fill a screen.
PYTHONWARNINGS=ignore .venv/bin/python -m pip install $quiet --disable-pip-version-check --no-build-isolation \
    --constraint constraints.txt --editable ./clients/python --editable ".[$extras]"
touch .venv/.installed-hosted
if [ "$1" != hosted ]; then
    touch .venv/.installed-run
fi
if [ "$1" = test ]; then
    touch .venv/.installed
fi
