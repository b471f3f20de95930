"""The schedule: which listener hears which triplet, at which position, with the more similar clip on which side.

A TrialList is one listener's trials. Every embedder has lists of its own or, unless `design.comparison` is "separate",
all are heard in each list, on the same prompts, each equally often. In the `paper` design every triplet is heard
equally often, no listener hears a prompt twice, and each listener hears every bin pair equally often, give or take one.
The more similar clip is A in half of each bin pair's and each triplet's trials, and each bin pair is spread evenly over
the positions. In the `robust` design each listener answers every bin pair equally often, over as many different prompts
as possible. "Half" and "evenly" are exact if the numbers divide, and off by one otherwise. Sides are balanced over the
lists and not within one, where a listener who is sure of nine answers would know the tenth. A place that goes to
another listener keeps its list, so the answers of a complete study are balanced too.

Conventions: lists count from 0 over all embedders, positions from 1. All randomness comes from one generator, which
the build derives from the study's secret key.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from embeddings.errors import ConfigError
from embeddings.wording import counted
from study.config_sections import DesignConfig
from study.design.bin_pairs import BIN_PAIRS
from study.trials import PlannedTrial, Triplet

REPEAT_DISTANCE = 3  # least number of positions between a trial and its repeat


Cell = tuple[int, int]  # (prompt number, pair number)
TripletCell = tuple[int, int, int]  # (prompt number, pair number, embedder number)
Edge = tuple[int, int]  # (listener, slot)


def make_schedule(triplets: Sequence[Triplet], design: DesignConfig, rng: np.random.Generator) -> list[PlannedTrial]:
    """All TrialLists for the triplets; each embedder has its own full set, or all share one (`design.comparison`).

    Raises:
        ConfigError: if the sizes in [design] cannot be met, naming the number to change.
    """
    embedders = list(dict.fromkeys(triplet.embedder for triplet in triplets))
    if design.comparison != "separate":
        return _plan_lists(triplets, design, rng, embedders, first_list=0)
    trials: list[PlannedTrial] = []
    for number, (embedder, own_rng) in enumerate(zip(embedders, rng.spawn(len(embedders)), strict=True)):
        own = [triplet for triplet in triplets if triplet.embedder == embedder]
        trials += _plan_lists(own, design, own_rng, [embedder], first_list=number * design.listener_count)
    return trials


def _plan_lists(
    triplets: Sequence[Triplet], design: DesignConfig, rng: np.random.Generator, embedders: list[str], first_list: int
) -> list[PlannedTrial]:
    """The TrialLists of embedders with the same prompts; `design.listener_count` lists for each of them."""
    prompts = list(dict.fromkeys(triplet.prompt for triplet in triplets))
    by_cell = {
        (prompts.index(t.prompt), BIN_PAIRS.index((t.bin_high, t.bin_low)), embedders.index(t.embedder)): t
        for t in triplets
    }
    check_sizes(len(prompts), design)
    assign = assign_paper if design.kind == "paper" else assign_robust
    listeners = design.listener_count * len(embedders)
    cells = spread_embedders(assign(len(prompts), listeners, design.scored_trials, rng), len(embedders), rng)
    high_is_a = balance_sides(cells, rng)
    positions = spread_positions(cells, design.scored_trials, rng)
    catch_sides = half_true(design.catch_trials * len(cells), rng)
    lists = []
    for listener, chosen in enumerate(cells):
        scored = [
            _plan(by_cell[cell], first_list + listener, "AB"[not is_a])
            for _, cell, is_a in sorted(zip(positions[listener], chosen, high_is_a[listener], strict=True))
        ]
        own_sides = catch_sides[listener * design.catch_trials :][: design.catch_trials]
        lists.append(_add_checks(scored, triplets, design, own_sides, rng))
    return [trial for trials in lists for trial in trials]


def spread_embedders(cells: list[list[Cell]], embedders: int, rng: np.random.Generator) -> list[list[TripletCell]]:
    """Give every cell an embedder: each equally often for each listener and for each pair of prompt and bin pair.

    Trials are edges between listeners and cells, each split into vertices of at most as many edges as there are
    embedders; colouring them (König 1916) puts every embedder once at each vertex.
    """
    used: dict[Cell, int] = defaultdict(int)
    ends: dict[Edge, tuple[object, object]] = {}
    edges = [(listener, slot) for listener, row in enumerate(cells) for slot in range(len(row))]
    for index in rng.permutation(len(edges)):
        listener, slot = edges[index]
        cell = cells[listener][slot]
        ends[listener, slot] = ("listener", listener, slot // embedders), ("cell", cell, used[cell] // embedders)
        used[cell] += 1
    colours = _colour_edges(ends, embedders)
    names = rng.permutation(embedders)
    return [
        [(*cell, int(names[colours[listener, slot]])) for slot, cell in enumerate(row)]
        for listener, row in enumerate(cells)
    ]


def check_sizes(prompts: int, design: DesignConfig) -> None:
    """Refuse sizes that no schedule can meet, naming the number to change."""
    listeners, trials = design.listener_count, design.scored_trials
    if trials + design.catch_trials > prompts:
        raise ConfigError(
            f"study.toml: design.trials = {trials} (plus design.catch_trials = {design.catch_trials}) needs as many "
            f"different prompts per listener, but there are {prompts}; lower design.trials or raise design.prompts."
        )
    if design.repeat_trials > (most := max(trials - REPEAT_DISTANCE + 1, 0)):
        raise ConfigError(
            f"study.toml: design.repeat_trials = {design.repeat_trials} is too many: a trial is repeated at least "
            f"{REPEAT_DISTANCE} positions later, so with design.trials = {trials} set it to {most} at most."
        )
    if design.kind == "robust":
        if trials % len(BIN_PAIRS):
            raise ConfigError(
                f"study.toml: design.trials = {trials} is not a multiple of the {len(BIN_PAIRS)} bin pairs; the robust "
                f"design needs {trials // len(BIN_PAIRS) * len(BIN_PAIRS) or len(BIN_PAIRS)} or another multiple."
            )
        return
    count = prompts * len(BIN_PAIRS)
    if listeners * trials % count:
        step = count // np.gcd(count, trials)
        below, above = listeners // step * step, -(-listeners // step) * step
        choice = f"{below} or {above}" if below else str(above)
        raise ConfigError(
            f"study.toml: design.listeners = {listeners} × design.trials = {trials} does not cover each of the "
            f"{count} triplets equally often; set design.listeners = {choice}."
        )


def assign_paper(prompts: int, listeners: int, trials: int, rng: np.random.Generator) -> list[list[Cell]]:
    """Cells of each listener: distinct prompts, all pairs, every cell of prompts × pairs equally often.

    A block of prompts × 6 listeners is cyclic: listener (a, b) hears in slot j prompt a + offset_j and pair b + j,
    so each slot covers every cell once. Listeners beyond full blocks are matched by `_assign_rest`.
    """
    names, pair_names = rng.permutation(prompts), rng.permutation(len(BIN_PAIRS))
    block = prompts * len(BIN_PAIRS)
    offsets = rng.permutation(prompts)[:trials]
    cyclic = [
        [(int(names[(a + offsets[j]) % prompts]), int(pair_names[(b + j) % len(BIN_PAIRS)])) for j in range(trials)]
        for a in range(prompts)
        for b in range(len(BIN_PAIRS))
    ]
    cells = [list(row) for _ in range(listeners // block) for row in cyclic]
    if rest := listeners % block:
        cells += _assign_rest(prompts, rest, trials, rng)
    order = rng.permutation(listeners)
    return [cells[i] for i in order]


def _assign_rest(prompts: int, listeners: int, trials: int, rng: np.random.Generator) -> list[list[Cell]]:
    """Cells of fewer listeners than a cyclic block, each still equally often, matched listener by listener."""
    from scipy.optimize import linear_sum_assignment

    target = listeners * trials // (prompts * len(BIN_PAIRS))
    for _ in range(200):
        left = np.full((prompts, len(BIN_PAIRS)), target)
        cells: list[list[Cell]] = []
        for _ in range(listeners):
            pairs = _pairs_of(left.sum(axis=0), trials, rng)
            # The most needed cells first; a cell that is used up must not be chosen.
            cost = -(left[:, pairs].T ** 2.0) - left.sum(axis=1) * 0.5 + rng.random((trials, prompts)) * 0.1
            cost[left[:, pairs].T == 0] = 1e6
            slots, chosen = linear_sum_assignment(cost)
            if cost[slots, chosen].max() >= 1e6:
                break
            for slot, prompt in zip(slots, chosen, strict=True):
                left[prompt, pairs[slot]] -= 1
            cells.append([(int(p), int(pairs[s])) for s, p in zip(slots, chosen, strict=True)])
        else:
            return cells
    raise ConfigError(
        f"study.toml: no schedule was found for design.listeners = {listeners}, design.trials = {trials} and "
        f"{counted(prompts, 'prompt')}; any multiple of {prompts * len(BIN_PAIRS)} listeners has one."
    )


def _pairs_of(
    wanted: np.ndarray[tuple[int, ...], np.dtype[np.int64]], trials: int, rng: np.random.Generator
) -> list[int]:
    """The pairs of one listener: each equally often, to within one; the most needed pairs get the extra trials."""
    every, extra = divmod(trials, len(BIN_PAIRS))
    order = sorted(range(len(BIN_PAIRS)), key=lambda pair: (-int(wanted[pair]), rng.random()))
    return list(range(len(BIN_PAIRS))) * every + order[:extra]


def assign_robust(prompts: int, listeners: int, trials: int, rng: np.random.Generator) -> list[list[Cell]]:
    """Cells of each listener: distinct prompts, each pair equally often, cells used as evenly as possible.

    Prompts are dealt to the listeners in turn. Then pairs colour the bipartite graph of listeners and prompts, each
    split into vertices of at most six edges: every pair comes once at each vertex, so no prompt always has one pair.
    """
    names, pair_names = rng.permutation(prompts), rng.permutation(len(BIN_PAIRS))
    chosen = [[int(names[(listener * trials + j) % prompts]) for j in range(trials)] for listener in range(listeners)]
    edges = [(listener, slot) for listener in range(listeners) for slot in range(trials)]
    used: dict[int, int] = defaultdict(int)
    ends: dict[Edge, tuple[object, object]] = {}
    for index in rng.permutation(len(edges)):
        listener, slot = edges[index]
        prompt = chosen[listener][slot]
        ends[listener, slot] = (
            ("listener", listener, slot // len(BIN_PAIRS)),
            ("prompt", prompt, used[prompt] // len(BIN_PAIRS)),
        )
        used[prompt] += 1
    colours = _colour_edges(ends, len(BIN_PAIRS))
    return [
        [(prompt, int(pair_names[colours[listener, slot]])) for slot, prompt in enumerate(row)]
        for listener, row in enumerate(chosen)
    ]


def balance_sides(cells: list[list[TripletCell]], rng: np.random.Generator) -> list[list[bool]]:
    """True if the more similar clip is A: in half of each bin pair's and of each triplet's trials.

    A triplet with an odd number of trials has one left over; those of a bin pair are divided in half again.
    """
    trials_of: dict[TripletCell, list[Edge]] = defaultdict(list)
    for listener, row in enumerate(cells):
        for slot, cell in enumerate(row):
            trials_of[cell].append((listener, slot))
    side: dict[Edge, bool] = {}
    left_over: dict[tuple[int, int], list[Edge]] = defaultdict(list)
    for (_, pair, embedder), own in sorted(trials_of.items()):
        order = [own[i] for i in rng.permutation(len(own))]
        if len(order) % 2:
            left_over[pair, embedder].append(order.pop())
        side.update(zip(order, half_true(len(order), rng), strict=True))
    for own in left_over.values():
        side.update(zip(own, half_true(len(own), rng), strict=True))
    return [[side[listener, slot] for slot in range(len(row))] for listener, row in enumerate(cells)]


def half_true(count: int, rng: np.random.Generator) -> list[bool]:
    """`count` values in random order, half of them true; of an odd number, chance decides the last."""
    first = int(rng.integers(2))
    return [bool(value) for value in rng.permutation([(first + i) % 2 for i in range(count)])]


def spread_positions(cells: list[list[TripletCell]], trials: int, rng: np.random.Generator) -> list[list[int]]:
    """A position (0-based) for each trial: distinct within a listener, each bin pair even over the positions.

    Each pair is split into vertices of at most `trials` edges; colouring the bipartite graph of listeners and
    these vertices with `trials` colours (König 1916) puts each position once at each vertex.
    """
    edges = [(listener, slot) for listener, row in enumerate(cells) for slot in range(len(row))]
    used: dict[int, int] = defaultdict(int)
    right: dict[tuple[int, int], tuple[int, int]] = {}
    for index in rng.permutation(len(edges)):
        listener, slot = edges[index]
        pair = cells[listener][slot][1]
        right[listener, slot] = (pair, used[pair] // trials)
        used[pair] += 1
    colours = _colour_edges({edge: (("listener", edge[0]), ("pair", *right[edge])) for edge in right}, trials)
    names = rng.permutation(trials)
    return [[int(names[colours[listener, slot]]) for slot in range(len(row))] for listener, row in enumerate(cells)]


def _colour_edges(ends: dict[Edge, tuple[object, object]], colours: int) -> dict[Edge, int]:
    """Colour the edges of a bipartite multigraph of maximum degree `colours`, no colour twice at a vertex."""
    at: dict[object, dict[int, Edge]] = defaultdict(dict)
    colour: dict[Edge, int] = {}
    for edge, (left, right) in ends.items():
        free_left = next(c for c in range(colours) if c not in at[left])
        free_right = next(c for c in range(colours) if c not in at[right])
        if free_left in at[right]:
            _swap_chain(right, free_left, free_right, ends, at, colour)
        colour[edge] = free_left
        at[left][free_left] = at[right][free_left] = edge
    return colour


def _swap_chain(
    start: object,
    one: int,
    other: int,
    ends: dict[Edge, tuple[object, object]],
    at: dict[object, dict[int, Edge]],
    colour: dict[Edge, int],
) -> None:
    """Exchange two colours along the path that leaves `start` with colour `one`, so that `one` is free there."""
    chain, vertex, wanted = [], start, one
    while wanted in at[vertex]:
        edge = at[vertex][wanted]
        chain.append(edge)
        left, right = ends[edge]
        vertex = right if vertex == left else left
        wanted = other if wanted == one else one
    for edge in chain:
        for vertex in ends[edge]:
            del at[vertex][colour[edge]]
    for edge in chain:
        colour[edge] = other if colour[edge] == one else one
        for vertex in ends[edge]:
            at[vertex][colour[edge]] = edge


def _plan(triplet: Triplet, number: int, high_side: str) -> PlannedTrial:
    return PlannedTrial(
        embedder=triplet.embedder,
        list=number,
        position=0,
        kind="scored",
        triplet=triplet.triplet,
        prompt=triplet.prompt,
        bin_high=triplet.bin_high,
        bin_low=triplet.bin_low,
        clip_high=triplet.clip_high,
        clip_low=triplet.clip_low,
        similarity_high=triplet.similarity_high,
        similarity_low=triplet.similarity_low,
        high_side="A" if high_side == "A" else "B",
    )


def _add_checks(
    scored: list[PlannedTrial],
    triplets: Sequence[Triplet],
    design: DesignConfig,
    catch_sides: list[bool],
    rng: np.random.Generator,
) -> list[PlannedTrial]:
    """Insert catch and repeat trials and number the positions from 1."""
    trials = list(scored)
    for catch in _catch_trials(scored, triplets, catch_sides, rng):
        trials.insert(int(rng.integers(len(trials) + 1)), catch)
    # Only trials that leave room for the distance can be repeated.
    for index in rng.permutation(max(len(scored) - REPEAT_DISTANCE + 1, 0))[: design.repeat_trials]:
        original = scored[index]
        again = replace(original, kind="repeat", high_side="B" if original.high_side == "A" else "A")
        earliest = trials.index(original) + REPEAT_DISTANCE
        trials.insert(int(rng.integers(earliest, len(trials) + 1)), again)
    return [replace(trial, position=position) for position, trial in enumerate(trials, start=1)]


def _catch_trials(
    scored: list[PlannedTrial], triplets: Sequence[Triplet], high_is_a: list[bool], rng: np.random.Generator
) -> list[PlannedTrial]:
    """Trials whose more similar clip is the prompt itself, on prompts that the listener does not hear otherwise."""
    heard = {trial.prompt for trial in scored}
    random_clips = {t.prompt: t for t in triplets if t.bin_low == 4 and t.prompt not in heard}
    chosen = rng.permutation(sorted(random_clips))[: len(high_is_a)]
    return [
        replace(
            _plan(random_clips[int(prompt)], scored[0].list, "AB"[not is_a]),
            kind="catch",
            triplet=-1,
            bin_high=1,
            clip_high=int(prompt),
            similarity_high=1.0,
        )
        for prompt, is_a in zip(chosen, high_is_a, strict=False)
    ]
