#!/usr/bin/env python3
"""Writes tests/fixtures/indexed/: indexed data sets, blends and windows of Megatron-Core's, for src/data's tests to match.

Needs megatron-core (0.16.1, with its compiled helpers), numpy and torch. Running it twice gives the same bytes:

    python scripts/make_indexed_fixtures.py tests/fixtures/indexed

With --check it writes nothing: it reads, with Megatron-Core, what `mixtune preprocess --output_format indexed` wrote, and
compares it with what --output_format jsonl wrote of the same data:

    python scripts/make_indexed_fixtures.py --check PREFIX TOKENS.jsonl
"""

import json
import pathlib
import sys
import tempfile
import types

import numpy
import torch
from megatron.core.datasets.blended_dataset import BlendedDataset
from megatron.core.datasets.blended_megatron_dataset_builder import (
    BlendedMegatronDatasetBuilder,
    _get_size_per_split_per_dataset,
)
from megatron.core.datasets.blended_megatron_dataset_config import (
    convert_split_vector_to_split_matrix,
    parse_and_normalize_split,
)
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import DType, IndexedDataset, IndexedDatasetBuilder
from megatron.core.datasets.utils import Split, normalize

# Documents of sequences of ids. Some documents and sequences are empty.
SMALL = [[[1, 5, 6, 2], [7]], [], [[], [1, 65498, 2]], [[8]], [], []]
LARGE = [[[1, 5, 70000, 2]], [[1, 131071], [0, 3, 4]], []]


def write_data_set(prefix, documents, vocabulary):
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=DType.optimal_dtype(vocabulary))
    for sequences in documents:
        for ids in sequences:
            builder.add_item(torch.tensor(ids, dtype=torch.int64))
        builder.end_document()
    builder.finalize(f"{prefix}.idx")


def read_jsonl(path):
    """Documents of sequences. A record of which nothing is left is an empty list of ids, here an empty document."""
    documents = []
    with open(path) as lines:
        for line in map(json.loads, lines):
            if not line.get("continues_record"):
                documents.append([])
            if line["input_ids"]:
                documents[-1].append((line["input_ids"], line["labels"]))
    return documents


def read_mask(prefix, tokens):
    """Whether each token is trained; docs/indexed-data.md has the layout."""
    path = pathlib.Path(f"{prefix}.mask")
    if not path.exists():
        return numpy.ones(tokens, dtype=bool)
    content = path.read_bytes()
    assert content[:24] == b"MTMASK\0\0" + (1).to_bytes(8, "little") + tokens.to_bytes(8, "little")
    return numpy.unpackbits(numpy.frombuffer(content[24:], numpy.uint8), bitorder="little")[:tokens].astype(bool)


def check(prefix, jsonl):
    dataset = IndexedDataset(prefix)
    documents = read_jsonl(jsonl)
    begins = dataset.document_indices
    assert len(begins) == len(documents) + 1, f"{len(begins) - 1} documents, {len(documents)} records"
    trained = read_mask(prefix, int(dataset.sequence_lengths.sum()))
    token = 0
    for document, sequences in enumerate(documents):
        assert begins[document + 1] - begins[document] == len(sequences), f"document {document}"
        for i, (ids, labels) in enumerate(sequences):
            assert dataset[begins[document] + i].tolist() == ids, f"document {document}, sequence {i}"
            mask = trained[token : token + len(ids)]
            assert [x if t else -100 for x, t in zip(ids, mask)][1:] == labels[1:], f"document {document}, mask {i}"
            token += len(ids)
    print(f"the same: {len(documents)} documents, {len(dataset)} sequences, {token} tokens, {trained.sum()} trained")


def write_data_sets(folder):
    write_data_set(folder / "small", SMALL, 65499)
    write_data_set(folder / "large", LARGE, 65500)
    write_data_set(folder / "no_sequence", [[]], 32000)
    write_json(folder / "data_sets.json", {"small": SMALL, "large": LARGE, "no_sequence": [[]]})


# Weights of blends, and how many samples of each are written down.
BLENDS = [
    ([1], 5),
    ([1, 1], 20),
    ([0.3, 0.7], 60),
    ([30, 70], 60),
    ([0.1, 0.2, 0.7], 200),
    ([5, 1, 3, 1], 100),
    ([1e-6, 1], 40),
    ([1 / 3, 1 / 3, 1 / 3], 60),
    ([0.3, 0.3, 0.4], 200),
    ([0.05, 0.15, 0.1, 0.2, 0.25, 0.25], 400),
    ([0.1 * (i + 1) for i in range(9)], 400),
    ([1 + (i * 37 % 11) / 7 for i in range(20)], 400),
    ([1 + (i * 53 % 17) / 13 for i in range(150)], 600),
]
SIZES = [[4], [3, 3], [10, 1], [1, 10, 100], [7, 2, 5], [20, 21, 19, 22]]


class Samples(torch.utils.data.Dataset):
    """As much of a MegatronDataset as BlendedDataset asks for."""

    index_split = Split.train
    unique_identifiers = {}

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size


def blended(weights, size, sizes):
    config = types.SimpleNamespace(path_to_cache=None, defer_npy_index_mmap=False)
    return BlendedDataset([Samples(s) for s in sizes], weights, size, config)


def write_blends(folder):
    """Each sample as [data set, its sample]; `built` is how many samples of each data set Megatron builds."""
    by_weight, by_size = [], []
    for weights, count in BLENDS:
        normalized = normalize(weights)
        blend = blended(normalized, count, [count] * len(weights))
        order = numpy.stack([blend.dataset_index, blend.dataset_sample_index], axis=1).tolist()
        built = [size for [size] in _get_size_per_split_per_dataset(normalized, [count], surplus=0.005)]
        by_weight.append({"weights": weights, "order": order, "built": built})
    for sizes in SIZES:
        blend = blended(sizes, None, sizes)
        order = numpy.stack([blend.dataset_index, blend.dataset_sample_index], axis=1).tolist()
        by_size.append({"sizes": sizes, "order": order})
    write_json(folder / "blends.json", {"weights": by_weight, "sizes": by_size})


SPLITS = ["990,9,1", "1", "1,1", "1,1,1", "99,1,0", "0,1,0", "949,50,1", "0.9,0.05,0.05", "70, 20, 10", ".5,.5", "1,0,1"]
COUNTS = [0, 1, 2, 3, 5, 7, 10, 100, 1001, 123457, 10**7 + 1]


def write_splits(folder):
    """For each split and number of sequences, [begin, end) of training, validation and test; null: no such part."""
    splits = []
    for split in SPLITS:
        matrix = convert_split_vector_to_split_matrix(parse_and_normalize_split(split))
        for count in COUNTS:
            # As BlendedMegatronDatasetBuilder._build_megatron_dataset_splits does.
            ranges = [part and [int(round(share * float(count))) for share in part] for part in matrix]
            splits.append({"split": split, "sequences": count, "ranges": ranges})
    write_json(folder / "splits.json", splits)


EOD = 2
# The data set of the windows: sequences that end with EOD, one that is EOD alone, and an empty one.
LENGTHS = [5, 1, 17, 0, 3, 8, 2, 40, 6, 1, 11, 4]
# (first sequence, end, seq_length, windows asked for, seed)
WINDOWS = [
    (0, 12, 4, None, 1234),
    (0, 12, 7, None, 0),
    (0, 12, 7, None, 2**32 - 1),
    (0, 12, 97, None, 1),
    (0, 12, 98, None, 1),
    (0, 12, 8, 3, 42),
    (0, 12, 8, 12, 42),
    (0, 12, 8, 13, 42),
    (0, 12, 8, 22, 42),
    (0, 12, 8, 24, 42),
    (0, 12, 8, 50, 42),
    (0, 12, 1, 200, 7),
    (0, 12, 150, 5, 3),
    (2, 9, 5, 40, 9),
    (1, 2, 3, 4, 9),
    (7, 8, 4, None, 11),
]


def sequence_of(index):
    """Ids that tell where they come from, and EOD at the end."""
    return [100 * (index + 1) + i for i in range(LENGTHS[index] - 1)] + [EOD] * (LENGTHS[index] > 0)


def gpt_dataset(prefix, cache, begin, end, seq_length, samples, seed, masking):
    tokenizer = types.SimpleNamespace(eod=EOD, eos=EOD, pad=-1, vocab_size=5000, unique_identifiers={})
    config = GPTDatasetConfig(
        random_seed=seed,
        sequence_length=seq_length,
        blend=([prefix], None),
        split="1",
        path_to_cache=cache,
        tokenizer=tokenizer,
        reset_position_ids=masking[0],
        reset_attention_mask=masking[1],
        eod_mask_loss=masking[2],
    )
    indices = numpy.arange(begin, end, dtype=numpy.int32)
    return GPTDataset(IndexedDataset(prefix), prefix, indices, samples, Split.train, config)


def write_windows(folder):
    """The tokens of all windows, in order; and whole samples, for some of the ways to mask."""
    write_data_set(folder / "windows", [[sequence_of(i)] for i in range(len(LENGTHS))], 32000)
    prefix = str(folder / "windows")
    windows, samples = [], []
    for case in WINDOWS:
        with tempfile.TemporaryDirectory() as cache:
            dataset = gpt_dataset(prefix, cache, *case, (False, False, False))
            tokens = [dataset._query_document_sample_shuffle_indices(i)[0].tolist() for i in range(len(dataset))]
        windows.append({"case": case, "tokens": tokens})
    for masking in [(False, False, False), (False, False, True), (True, True, False), (True, True, True)]:
        with tempfile.TemporaryDirectory() as cache:
            dataset = gpt_dataset(prefix, cache, 0, 12, 7, 40, 5, masking)
            items = [dataset[i] for i in range(len(dataset))]
        keys = ["tokens", "labels", "loss_mask", "position_ids"]
        samples.append({"masking": masking, "samples": [{k: item[k].long().tolist() for k in keys} for item in items]})
    shuffles = []
    for seed, size in [(0, 1), (0, 2), (1, 10), (1234, 1000), (2**32 - 1, 300)]:
        values = numpy.arange(size)
        numpy.random.RandomState(seed).shuffle(values)
        shuffles.append({"seed": seed, "values": values.tolist()})
    write_json(folder / "windows.json", {"windows": windows, "samples": samples, "shuffles": shuffles})


# Further data sets, to blend with the one of the windows.
MORE_LENGTHS = {"more": [9, 30, 2, 14, 1, 6, 21, 5, 12], "few": [4, 7, 3]}

# A run's data: (prefixes, weights or None, split, seq_length, samples, seed)
RUNS = [
    (["windows"], None, "1", 8, 12, 42),
    (["windows"], None, "1", 8, 40, 42),
    (["windows"], [1], "1", 8, 40, 42),
    (["windows", "more"], [0.3, 0.7], "1", 8, 60, 42),
    (["windows", "more", "few"], [5, 3, 0.5], "1", 5, 90, 1234),
    (["windows", "more"], None, "1", 8, 11, 7),
    (["windows", "more", "few"], None, "1", 4, 50, 7),
    (["more", "windows"], [30, 70], "7,2,1", 6, 48, 3),
    (["windows"], None, "990,300", 6, 21, 3),
]


def run_data_set(folder, cache, prefixes, weights, split, seq_length, samples, seed):
    tokenizer = types.SimpleNamespace(eod=EOD, eos=EOD, pad=-1, vocab_size=5000, unique_identifiers={})
    config = GPTDatasetConfig(
        random_seed=seed,
        sequence_length=seq_length,
        blend=([str(folder / prefix) for prefix in prefixes], weights),
        split=split,
        path_to_cache=cache,
        tokenizer=tokenizer,
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
    )
    # As training does it: so many samples for training, and some for the other parts.
    return BlendedMegatronDatasetBuilder(GPTDataset, [samples, 1, 1], lambda: True, config).build()[0]


def write_runs(folder):
    """The windows that training reads, in order, each with the target of its last token."""
    for name, lengths in MORE_LENGTHS.items():
        sequences = [[500 * len(name) + 50 * i + t for t in range(length)] for i, length in enumerate(lengths)]
        write_data_set(folder / name, [[sequence] for sequence in sequences], 32000)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    runs = []
    for run in RUNS:
        with tempfile.TemporaryDirectory() as cache:
            dataset = run_data_set(folder, cache, *run)
            items = [dataset[i] for i in range(run[4])]
        runs.append({"run": run, "tokens": [i["tokens"].tolist() + [int(i["labels"][-1])] for i in items]})
    torch.distributed.destroy_process_group()
    write_json(folder / "runs.json", runs)


def write_json(path, value):
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n")


def main():
    if sys.argv[1] == "--check":
        return check(sys.argv[2], sys.argv[3])
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_data_sets(folder)
    write_blends(folder)
    write_splits(folder)
    write_windows(folder)
    write_runs(folder)


if __name__ == "__main__":
    main()
