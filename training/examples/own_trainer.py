"""A trainer that nhzoo knows nothing of: a memory that learns which answer belongs to which symbol.

Symbols come with frequencies like those of words (Zipf's law). The memory has a place for each of
`size` symbols, the most frequent ones that it has met, and tells the answer of these with a
certainty of 0.99; of others it guesses. So its loss falls with its size and with its samples.

    python own_trainer.py --size 2000 --samples 50000 --seed 0 --row row.json
"""

import argparse
import json
from pathlib import Path

import numpy as np

SYMBOLS = 2_000_000
EXPONENT = 1.5
SURE = 0.99


def train(size: int, samples: int, seed: int) -> dict[str, float]:
    """Meet so many samples, keep so many symbols; the row of this run."""
    frequency = np.arange(1, SYMBOLS + 1) ** -EXPONENT
    frequency /= frequency.sum()
    met = np.bincount(
        np.random.default_rng(seed).choice(SYMBOLS, samples, p=frequency), minlength=SYMBOLS
    )
    kept = np.argsort(-met, kind="stable")[:size]
    known = frequency[kept[met[kept] > 0]].sum()
    loss = -known * np.log(SURE) + (1 - known) * np.log(2)
    return {"params": size, "samples": samples, "flops": 6 * size * samples, "loss": float(loss)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--size", "--samples", "--seed"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--row", type=Path, required=True)
    options = parser.parse_args()
    row = train(options.size, options.samples, options.seed)
    options.row.write_text(json.dumps(row))  # last: with its row a run is finished
    print(f"loss {row['loss']:.4f}")
