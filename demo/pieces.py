"""The demo's pieces: twelve families, each with the properties that its versions and performances share.

Conventions: pitches are MIDI numbers, tempo is in beats per minute, chords are degrees of the scale (0 is the tonic),
one per bar; a drum pattern is one bar of equal steps: 'x' loud, 'o' soft, '.' rest.
"""

from __future__ import annotations

from dataclasses import dataclass

MAJOR = (0, 2, 4, 5, 7, 9, 11)
MINOR = (0, 2, 3, 5, 7, 8, 10)
DORIAN = (0, 2, 3, 5, 7, 9, 10)

DRUMS: dict[str, dict[str, str]] = {
    "none": {},
    "four": {"kick": "x...x...x...x...", "snare": "....x.......x...", "hat": "..x...x...x...x."},
    "rock": {"kick": "x.....x.x.......", "snare": "....x.......x...", "hat": "x.o.x.o.x.o.x.o."},
    "break": {"kick": "x..x......x..x..", "snare": "....x..o.o..x..o", "hat": "x.xxx.x.x.xxx.x."},
    "bossa": {"kick": "x..ox..ox..ox..o", "rim": "x..x..x...x..x..", "hat": "oooooooooooooooo"},
    "march": {"kick": "x.......x.......", "snare": "x..xx.x.x..xxxxx"},
    "half": {"kick": "x.........x.....", "snare": "........x.......", "hat": "o.o.o.o.o.o.o.oo"},
    "waltz": {"kick": "x...........", "rim": "....x...x...", "hat": "....o...o..."},
    "brush": {"hat": "x..ox..ox..ox..o", "snare": "....o.......o..."},
    "swing": {"kick": "x.......o.......", "hat": "x...x..ox...x..o", "rim": "............x..."},
}


@dataclass(frozen=True)
class DemoPiece:
    """A family: the properties that all versions and performances of a piece share."""

    title: str
    genre: str
    tempo: float
    key: int
    scale: tuple[int, ...]
    chords: tuple[int, ...]
    voices: tuple[str, str, str]  # chords, bass, melody
    other_voices: tuple[str, str, str]
    drums: str
    comp: str  # how chords are played: "block", "arpeggio", "offbeat", "sustain", "pulse"
    beats: int = 4
    density: float = 0.6  # share of the melody's steps that are notes


# fmt: off
PIECES: tuple[DemoPiece, ...] = (
    DemoPiece("Paper Boats", "waltz", 138, 55, MAJOR, (0, 5, 3, 4, 0, 2, 3, 4),
          ("piano", "bowed bass", "flute"), ("harp", "finger bass", "clarinet"), "waltz", "block", beats=3),
    DemoPiece("Night Tram", "house", 124, 57, MINOR, (0, 5, 2, 6),
          ("organ", "synth bass", "square"), ("strings", "synth bass", "bells"), "four", "offbeat"),
    DemoPiece("Salt Road", "folk", 104, 50, DORIAN, (0, 6, 3, 0, 0, 3, 6, 0),
          ("guitar", "finger bass", "flute"), ("harp", "bowed bass", "clarinet"), "none", "arpeggio", density=0.75),
    DemoPiece("Iron Garden", "rock", 142, 52, MINOR, (0, 0, 5, 6, 0, 0, 3, 4),
          ("brass", "synth bass", "square"), ("organ", "finger bass", "brass"), "rock", "pulse", density=0.5),
    DemoPiece("Lantern Bay", "bossa nova", 128, 53, MAJOR, (0, 5, 1, 4, 2, 5, 1, 4),
          ("electric piano", "finger bass", "clarinet"), ("guitar", "finger bass", "flute"), "bossa", "offbeat"),
    DemoPiece("Winter Gate", "ambient", 66, 48, MAJOR, (0, 3, 5, 3),
          ("strings", "bowed bass", "bells"), ("organ", "bowed bass", "harp"), "none", "sustain", density=0.3),
    DemoPiece("Copper Clock", "minimal", 112, 60, MAJOR, (0, 0, 3, 3, 4, 4, 3, 3),
          ("marimba", "bowed bass", "marimba"), ("piano", "bowed bass", "bells"), "none", "arpeggio", density=0.9),
    DemoPiece("Low Tide Parade", "march", 116, 58, MAJOR, (0, 4, 0, 3, 0, 4, 1, 4),
          ("brass", "bowed bass", "brass"), ("clarinet", "bowed bass", "flute"), "march", "block"),
    DemoPiece("Glass Alley", "drum and bass", 168, 50, MINOR, (0, 0, 5, 5, 3, 3, 4, 4),
          ("strings", "synth bass", "electric piano"), ("organ", "synth bass", "square"), "break", "sustain",
          density=0.4),
    DemoPiece("Sunday Mile", "soul", 92, 55, DORIAN, (0, 3, 0, 3, 5, 3, 1, 4),
          ("electric piano", "finger bass", "brass"), ("organ", "finger bass", "clarinet"), "half", "pulse"),
    DemoPiece("Blue Ladder", "swing", 150, 58, MAJOR, (0, 0, 3, 0, 4, 3, 0, 4),
          ("piano", "finger bass", "clarinet"), ("guitar", "finger bass", "brass"), "swing", "block", density=0.65),
    DemoPiece("Moss Lullaby", "lullaby", 78, 60, MAJOR, (0, 4, 5, 3, 0, 4, 3, 0),
          ("harp", "bowed bass", "harp"), ("bells", "bowed bass", "flute"), "brush", "arpeggio", density=0.45),
)
# fmt: on
