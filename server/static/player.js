/* The player: sounds are fetched and decoded ahead and played by Web Audio.

   "Heard" means rendered: the audio context's clock, which stands still while nothing is rendered, must have covered
   every part of a sound; stopping, switching or a suspended context leaves parts out. A sound starts on a sample.
   Starting or stopping in the middle is faded over 10 ms; a sound's own beginning and end are played unchanged.
   Times are in seconds. */
"use strict";

const FADE = 0.01;
const AHEAD = 0.02; // from a key press to the first sample: time to schedule it exactly
const SLACK = 0.025; // of a sound that may be missing: browsers' clocks are coarse
const STUCK_MS = 4000; // after which a context that reports "running" counts as stuck
const RATE = 44100; // used for decoding before there is a context

class PlayError extends Error {} // Web Audio or the codec fails; loading again does not help
class GoneError extends Error {} // the sound is not due, or no longer due

const speaker = {
  context: null,
  out: null,

  /* Make the context run. It is made at the first gesture, because browsers silence one that is made earlier. */
  async wake() {
    if (!this.context) this.use(new (window.AudioContext || window.webkitAudioContext)({ latencyHint: "interactive" }));
    if (this.context.state === "running") return;
    const resumed = this.context.resume();
    await Promise.race([resumed, pause(STUCK_MS)]);
    if (this.context.state !== "running") throw new PlayError("silent");
  },
  use(context) {
    this.context = context;
    this.out = context.createAnalyser();
    this.out.connect(context.destination);
  },
  /* The current level, 0 to 1 over 60 dB. */
  level() {
    const samples = new Float32Array(this.out.fftSize);
    this.out.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, value) => sum + value * value, 0) / samples.length;
    return Math.min(1, Math.max(0, 1 + (10 * Math.log10(power + 1e-12)) / 60));
  },
};

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

const sounds = new Map(); // address -> promise of a Sound

class Sound {
  constructor(bytes) {
    this.bytes = bytes;
  }
  /* Decode to the rate of the context, so that nothing is resampled while it plays. */
  async decode() {
    const context = speaker.context || new OfflineAudioContext(1, 1, RATE);
    if (this.buffer && this.buffer.sampleRate === context.sampleRate) return this;
    try {
      this.buffer = await context.decodeAudioData(this.bytes.slice(0));
    } catch {
      throw new PlayError("decode");
    }
    return this;
  }
}

function canPlay() {
  return Boolean((window.AudioContext || window.webkitAudioContext) && window.OfflineAudioContext);
}

/* The sound at an address, fetched once; while the connection is lost, `lost` is called and the fetch is retried. */
function loadSound(address, lost = () => {}) {
  if (!sounds.has(address)) {
    const loading = fetchSound(address, lost).then((bytes) => new Sound(bytes).decode());
    sounds.set(address, loading);
    // A failed sound is fetched again.
    loading.catch(() => sounds.get(address) === loading && sounds.delete(address));
  }
  return sounds.get(address);
}

async function fetchSound(address, lost) {
  for (let wait = 500; ; wait = Math.min(wait * 2, 8000)) {
    try {
      const reply = await fetch(address, { credentials: "omit" });
      if (reply.ok) {
        const bytes = await reply.arrayBuffer();
        lost(false);
        return bytes;
      }
      if (reply.status < 500 && reply.status !== 429) throw new GoneError(address);
    } catch (error) {
      if (error instanceof GoneError) throw error;
    }
    lost(true);
    await pause(wait);
  }
}

/* Forget the sounds of earlier pages. */
function keepSounds(addresses) {
  for (const address of sounds.keys()) if (!addresses.includes(address)) sounds.delete(address);
}

/* Whether the spans [from, to] cover 0 to `duration`. */
function coverWhole(spans, duration) {
  let reached = 0;
  for (const [from, to] of [...spans].sort((one, other) => one[0] - other[0])) {
    if (from > reached + SLACK) return false;
    reached = Math.max(reached, to);
  }
  return reached >= duration - SLACK;
}

/* One sound of a page: `plays` counts how often its whole length was rendered, `seconds` how much in all. */
class Player {
  constructor(clip, address) {
    this.clip = clip;
    this.address = address;
    this.sound = null;
    this.run = null; // the current playback: {source, gain, when, from}
    this.plays = 0;
    this.seconds = 0;
    this.spans = [];
  }

  get duration() {
    return this.sound.buffer.duration;
  }
  /* How far into the sound the context has rendered, at time `at`. */
  position(at = speaker.context.currentTime) {
    if (!this.run) return 0;
    return Math.min(this.duration, this.run.from + Math.max(0, at - this.run.when));
  }

  start(when, from, ended) {
    const { context, out } = speaker;
    const source = context.createBufferSource();
    const gain = context.createGain();
    source.buffer = this.sound.buffer;
    source.connect(gain).connect(out);
    if (from > 0) {
      gain.gain.setValueAtTime(0, when);
      gain.gain.linearRampToValueAtTime(1, when + FADE);
    }
    const run = { source, gain, when, from };
    source.onended = () => {
      if (this.run !== run) return;
      this.record();
      ended();
    };
    source.start(when, from);
    this.run = run;
  }

  /* Stop at time `when`; what was rendered so far counts. */
  stop(when) {
    if (!this.run) return;
    const { source, gain } = this.run;
    this.record();
    const at = Math.max(when, speaker.context.currentTime);
    gain.gain.cancelScheduledValues(at);
    gain.gain.setValueAtTime(gain.gain.value, at);
    gain.gain.linearRampToValueAtTime(0, at + FADE);
    source.stop(at + FADE);
  }

  record() {
    const from = this.run.from;
    const to = this.position();
    this.run = null;
    this.seconds += to - from;
    this.spans.push([from, to]);
    if (!coverWhole(this.spans, this.duration)) return;
    this.plays += 1;
    this.spans = [];
  }
}

/* The players of a page, one of which plays at a time; `switching` is "restart" or "position". */
class Deck {
  constructor(players, switching, changed) {
    this.players = players;
    this.switching = switching;
    this.changed = changed;
    this.order = "";
    this.wanted = null;
  }

  get playing() {
    return this.players.find((player) => player.run) || null;
  }

  stop() {
    this.wanted = null;
    if (this.playing) this.playing.stop(speaker.context.currentTime);
    this.changed();
  }

  async play(player) {
    this.wanted = player;
    await speaker.wake();
    await Promise.all(this.players.filter((each) => each.sound).map((each) => each.sound.decode()));
    if (this.wanted === player) this.switchTo(player);
  }

  /* Start `player` on a sample, at its beginning or (switching "position") at the position of the current sound. */
  switchTo(player) {
    const { currentTime, sampleRate } = speaker.context;
    const frame = Math.ceil((currentTime + AHEAD) * sampleRate);
    const when = frame / sampleRate;
    const before = this.playing;
    let from = 0;
    if (before) {
      if (this.switching === "position" && before !== player) from = before.position(when);
      before.stop(when);
    }
    if (from > player.duration - 2 * FADE) from = 0;
    player.start(when, Math.round(from * sampleRate) / sampleRate, () => this.changed(player));
    this.order = (this.order + player.clip).slice(0, 256);
    this.changed();
  }
}
