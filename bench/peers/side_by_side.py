"""mixtune beside its peers in one run: each measured in a process of its own, so that none inherits another's memory."""
import datetime
import json
import pathlib
import subprocess
import sys
import tempfile

from transformers_step import versions


def in_own_process(name):
    """The running script again with `--peer NAME` before its arguments: what it prints last, or why there is nothing."""
    run = subprocess.run([sys.executable, sys.argv[0], "--peer", name, *sys.argv[1:]], stdout=subprocess.PIPE, text=True)
    return json.loads(run.stdout.splitlines()[-1]) if run.returncode == 0 else {"failed": f"exit {run.returncode}"}


def figure_of(measured):
    """What `measured` returns, milliseconds and bytes, or why it did not."""
    try:
        milliseconds, peak = measured()
    except Exception as error:  # out of memory, a backend that is missing: the others go on
        return {"failed": f"{type(error).__name__}: {error}".replace("\n", " ")[:200]}
    return {"milliseconds": milliseconds, "peak_bytes": peak}


def print_peer(measured, more_versions={}):
    """The last line of a peer's own process."""
    print(json.dumps(figure_of(measured) | {"versions": versions() | more_versions}))


def mixtune_step(program, flags):
    """The JSON of `mixtune bench step`."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "bench.json"
        subprocess.run([program, "bench", "step", *map(str, flags), "--json", str(out)], check=True, stdout=sys.stderr)
        return json.loads(out.read_text())


def report(figures, line_of, path, **facts):
    """A line for each figure, and all of them as JSON where there is a path."""
    for name, figure in figures.items():
        print(f"{name:40}" + (line_of(figure) if "milliseconds" in figure else f"  {figure['failed']}"))
    write(figures, path, **facts)


def write(figures, path, **facts):
    if path:
        whole = {"date": datetime.date.today().isoformat(), **facts, "figures": figures}
        pathlib.Path(path).write_text(json.dumps(whole, indent=2) + "\n")
