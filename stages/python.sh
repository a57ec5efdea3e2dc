# `sh stages/python.sh -m stages.NAME ...`, in the root: how DVC's commands find their interpreter, in any shell ($SHELL
# may be csh), however DVC was called (by its path, by a `python -m dvc`, in a copy made by `dvc exp run --temp`). The one
# that runs DVC, else .venv's, else the first on PATH; of these the first that has what the stages import.

has() {
    "$1" -c 'import sys; from importlib.util import find_spec
sys.exit(sys.version_info < (3, 11) or not (find_spec("torch") and find_spec("pydantic")))' 2>/dev/null
}

pid=$PPID caller=
while [ -z "$caller" ] && [ "$pid" -gt 1 ] && [ -r "/proc/$pid/cmdline" ]; do
    first=$(tr '\0' '\n' <"/proc/$pid/cmdline" | head -n 1)
    case $first in
    /*) ;;
    */*) first=$(readlink "/proc/$pid/cwd")/$first ;; # of the folder where it was called
    esac
    case ${first##*/} in python*) caller=$first ;; esac
    while read -r key value; do
        if [ "$key" = PPid: ]; then pid=$value; fi
    done <"/proc/$pid/status"
done

for python in "$caller" "$PWD/.venv/bin/python" python3 python; do
    if [ -n "$python" ] && has "$python"; then
        case $python in */*) PATH=${python%/*}:$PATH && export PATH ;; esac
        exec "$python" "$@"
    fi
done
echo "error: no Python on this machine has what the stages need (torch, pydantic); run \`make venv\`, then \`.venv/bin/dvc repro\`." >&2
exit 1
