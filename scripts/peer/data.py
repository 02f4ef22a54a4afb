"""The peer that reading data is measured against: Hugging Face `datasets` and `tokenizers`.

    python scripts/peer/data.py FOLDER --column input_ids --context-length 1024 --batch-size 16 --mode windows
    python scripts/peer/data.py FOLDER --column text --context-length 1024 --batch-size 16 --mode text \
        --tokenizer TOKENIZER.json

`windows`: rows that are windows already, read as the reference does: a streamed data set, a shuffle buffer of 1000,
tensors in batches from PyTorch's loader. `text`: documents, tokenised on all cores, joined by the end-of-text token and
cut into windows, in batches of the same kind; what is left at the end is dropped.

Prints one line of JSON: `windows`, `tokens`, `seconds` (from opening the files, imports left out), `tokens_per_second`
and `versions`.
"""

import argparse
import json
import time
from collections.abc import Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import load_dataset
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader

SHUFFLE_BUFFER = 1000
DOCUMENTS_AT_ONCE = 1000
LIBRARIES = ("datasets", "tokenizers", "pyarrow", "torch")


def files(folder: Path) -> list[str]:
    found = sorted(str(path) for path in folder.rglob("*.parquet"))
    assert found, f"no parquet files in {folder}"
    return found


def windows(folder: Path, column: str, context_length: int, batch_size: int) -> Iterator[Tensor]:
    """Batches [B, T] of stored windows, shuffled."""
    rows = load_dataset("parquet", data_files=files(folder), split="train", streaming=True)
    rows = rows.select_columns(column).shuffle(seed=0, buffer_size=SHUFFLE_BUFFER).with_format("torch")
    for batch in DataLoader(rows, batch_size=batch_size):
        assert batch[column].shape[1] == context_length, f"windows of {batch[column].shape[1]} tokens"
        yield batch[column]


def text(
    folder: Path, column: str, context_length: int, batch_size: int, tokenizer: Tokenizer, end_of_text: int
) -> Iterator[Tensor]:
    """Batches [B, T] of windows cut from documents, in their order; the last may be smaller."""
    length = batch_size * context_length
    pending = np.empty(0, dtype=np.int64)
    for file in files(folder):
        for documents in pq.ParquetFile(file).iter_batches(DOCUMENTS_AT_ONCE, columns=[column]):
            encodings = tokenizer.encode_batch_fast(documents.column(0).to_pylist(), add_special_tokens=False)
            pending = np.concatenate([pending, *(np.array([*each.ids, end_of_text]) for each in encodings)])
            whole = len(pending) // length * length
            yield from torch.from_numpy(pending[:whole]).view(whole // length, batch_size, context_length)
            pending = pending[whole:]
    rest = len(pending) // context_length * context_length
    if rest > 0:
        yield torch.from_numpy(pending[:rest]).view(-1, context_length)


def main() -> None:
    parser = argparse.ArgumentParser(description="The data peer; see the head of this file.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--column", required=True)
    parser.add_argument("--context-length", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--mode", choices=("windows", "text"), required=True)
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json, for text")
    parser.add_argument("--end-of-text", default="<|endoftext|>")
    parser.add_argument("--max-windows", type=int, help="stop at the first batch that reaches it")
    arguments = parser.parse_args()
    place = (arguments.folder, arguments.column, arguments.context_length, arguments.batch_size)

    start = time.perf_counter()
    if arguments.mode == "windows":
        batches = windows(*place)
    else:
        if arguments.tokenizer is None:
            parser.error("--mode text needs --tokenizer")
        tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
        end_of_text = tokenizer.token_to_id(arguments.end_of_text)
        if end_of_text is None:
            parser.error(f"the tokeniser has no {arguments.end_of_text}")
        batches = text(*place, tokenizer, end_of_text)
    if arguments.max_windows is not None:
        batches = islice(batches, -(-arguments.max_windows // arguments.batch_size))
    count = sum(len(batch) for batch in batches)
    seconds = time.perf_counter() - start
    tokens = count * arguments.context_length
    print(json.dumps({
        "windows": count, "tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds,
        "versions": {name: version(name) for name in LIBRARIES},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
