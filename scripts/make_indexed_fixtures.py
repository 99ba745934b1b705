#!/usr/bin/env python3
"""Writes tests/fixtures/indexed/: indexed data sets, blends and windows of Megatron-Core's, for src/data's tests to match.

Needs megatron-core (0.16.1, with its compiled helpers), numpy and torch. Running it twice gives the same bytes:

    python scripts/make_indexed_fixtures.py tests/fixtures/indexed

With --check PREFIX it writes nothing: it reads a data set with Megatron-Core and prints it, a line for each sequence,
as `DOCUMENT: ID ID ID`, and one for each empty document, as `DOCUMENT:`.
"""

import json
import pathlib
import sys

import numpy
import torch
from megatron.core.datasets.indexed_dataset import DType, IndexedDataset, IndexedDatasetBuilder

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


def print_data_set(prefix):
    dataset = IndexedDataset(prefix)
    begins = dataset.document_indices
    for document in range(len(begins) - 1):
        sequences = range(begins[document], begins[document + 1])
        for sequence in sequences:
            print(" ".join([f"{document}:", *map(str, dataset[sequence])]))
        if not sequences:
            print(f"{document}:")


def write_data_sets(folder):
    write_data_set(folder / "small", SMALL, 65499)
    write_data_set(folder / "large", LARGE, 65500)
    write_data_set(folder / "no_sequence", [[]], 32000)
    (folder / "data_sets.json").write_text(json.dumps({"small": SMALL, "large": LARGE, "no_sequence": [[]]}) + "\n")


def main():
    if sys.argv[1] == "--check":
        return print_data_set(sys.argv[2])
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_data_sets(folder)


if __name__ == "__main__":
    main()
