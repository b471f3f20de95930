"""Can an attacker who does not hear the sounds tell which clip is more similar, or which clip a sound is?

    python benchmarks/blinding.py [--listeners 84] [--rows 73]

Listeners take a study of twelve trials (84 listeners: 1,008 trials) in which more similar clips also have more similar
compressed sizes. The attacker of tests/server/participant/attacker.py gets every byte except the samples and learns
from five sixths of the listeners to guess the trials of the others: on what is sent, and on the same with each leak of
earlier versions. Then a matched filter looks for dither that follows from the source code, study.toml and the corpus.
The p-values against chance are exact (binomial; two-sided for sides, one-sided for rows).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from scipy.stats import binom

from study.secret_key import draw_key
from tests.paper_study import make_study
from tests.server.participant.attacker import LEAKS, Evidence, attack
from tests.server.participant.test_blinding import (
    PUBLIC_STREAMS,
    PlantedKey,
    listen,
    old_dither,
    rows_found,
    write_telling_sounds,
)


def print_verdict(what: str, seen: list[Evidence]) -> None:
    verdict = attack(seen)
    print(f"{what}: {verdict.right} of {verdict.trials} right, p = {verdict.chance:.2g}", flush=True)


def attack_traffic(folder: Path, listeners: int) -> None:
    toml = '[prescreen]\nkind = "none"\n'
    study = make_study(folder / "s", prompts=15, listeners=listeners, trials=12, toml=f'kind = "robust"\n{toml}')
    write_telling_sounds(study)
    seen = list(listen(study, folder, listeners))
    print_verdict("as it is sent", seen)
    for name, plant in LEAKS.items():
        print_verdict(f"planted: {name}", [plant(evidence) for evidence in seen])


def attack_dither(folder: Path, rows: int) -> None:
    found = rows_found(folder, rows, PlantedKey(bytes(32)), old_dither)
    print(f"dither of earlier versions: row and copy of {found} of {2 * rows} sounds", flush=True)
    key = draw_key()
    for name, stream in PUBLIC_STREAMS.items():
        found = rows_found(folder, rows, key, stream)
        p = binom.sf(found - 1, 2 * rows, 1 / (2 * rows))
        print(f"dither, tried as {name}: row and copy of {found} of {2 * rows} sounds, p = {p:.2g}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listeners", type=int, default=84)
    parser.add_argument("--rows", type=int, default=73)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        attack_traffic(Path(folder), options.listeners)
    with tempfile.TemporaryDirectory() as folder:
        attack_dither(Path(folder), options.rows)


if __name__ == "__main__":
    main()
