"""Commands of mixtune as bench/full_size and bench/qlora_soak run them: each is measured, and recorded in one JSON file
that is written anew whenever something is known. Needs Python alone."""
import datetime
import json
import mmap
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
QUICKSTART = REPOSITORY / "examples" / "quickstart"
SHAPE = {"head_dim": 128, "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
         "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 32, "rope_theta": 1e6,
         "num_key_value_heads": 8, "torch_dtype": "bfloat16", "vocab_size": 32000}  # Mixtral 8x7B
GIB = 2**30

started = []  # all commands, as processes


class Record:
    def __init__(self, out, **facts):
        self.out, self.lock = out, threading.Lock()
        self.report = {"date": datetime.date.today().isoformat(), "gpus": gpus(), **facts, "commands": []}

    def add(self, found):
        with self.lock:
            self.report["commands"].append(found)
        self.write()

    def write(self):
        with self.lock:
            self.out.write_text(json.dumps(self.report, indent=1) + "\n")


def gpus():
    """A line for each; none where there is no driver."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []


def start(words, gpu=None):
    shown = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, errors="replace", env=os.environ | shown)
    started.append(process)
    return process


def give_up(why):
    """Ends this program, and what it runs."""
    print(f"{pathlib.Path(sys.argv[0]).name}: {why}", file=sys.stderr, flush=True)
    for process in list(started):
        process.terminate()
    os._exit(1)


signal.signal(signal.SIGTERM, lambda *_: give_up("told to end"))


def run(record, name, words, gpu=None, more=lambda found: {}):
    """Ends this program where the command fails. more(what is recorded of it): what is recorded besides."""
    begin = time.monotonic()
    process = start(words, gpu)
    said = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    found = {"name": name, "arguments": " ".join(map(str, words[1:])), "exit": os.waitstatus_to_exitcode(status),
             "seconds": round(time.monotonic() - begin, 1), "host_gib": round(usage.ru_maxrss / 2**20, 2)}
    record.add(found | {"said": said[-6:]} | (more(found | {"said": said}) if status == 0 else {}))
    if status:
        give_up(f"{name} failed: {said[-1:]}")


def steps_of(folder):
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may still be written
    return [record for record in records if "lm_loss" in record]


def disk_rate(folder, size=8 * 10**9):
    """What the disk of `folder` takes of a new file, in GB/s, fsync included, and whether past the page cache: where the
    file system refuses that, as one in memory does, through it."""
    path = pathlib.Path(folder) / "disk_rate"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        file, direct = os.open(path, flags | os.O_DIRECT), True
    except OSError:
        file, direct = os.open(path, flags), False
    try:
        with mmap.mmap(-1, 1 << 24) as block:  # aligned
            block.write(os.urandom(len(block)))
            begin, done = time.monotonic(), 0
            while done < size:
                done += os.write(file, block)
            os.fsync(file)
            return {"GB/s": round(done / 1e9 / (time.monotonic() - begin), 2), "direct": direct}
    finally:
        os.close(file)
        path.unlink()


def make_base(record, mixtune, base, shape=SHAPE):
    """The base with random weights, where there is none yet: its rate beside the disk's own (8 GB) just before it."""
    if base.exists():
        return
    base.parent.mkdir(parents=True, exist_ok=True)

    def rates(found):
        size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
        return {"bytes": size, "GB/s": round(size / 1e9 / max(found["seconds"], 0.1), 2), "disk": disk,
                "cores": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory(dir=base.parent) as folder:
        model = pathlib.Path(folder) / "model.json"
        model.write_text(json.dumps(json.loads((QUICKSTART / "model.json").read_text()) | shape))
        disk = disk_rate(folder)
        run(record, "init", [mixtune, "init", model, base, "--tokenizer", QUICKSTART, "--dtype", "bf16"], more=rates)
