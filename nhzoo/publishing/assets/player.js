const ROWS = 24;
const COLUMNS = 80;
const KEYFRAME = 200; // frames between whole screens kept for seeking

/** A terminal that knows what recordings are made of: text, cursor moves, colours, clearing. */
class Terminal {
  constructor() {
    this.chars = new Uint8Array(ROWS * COLUMNS).fill(32);
    this.inks = new Uint8Array(ROWS * COLUMNS).fill(7);
    this.at = 0;
    this.pen = 7;
  }

  write(data) {
    for (const [, numbers, command, text] of data.matchAll(/\x1b\[([\d;]*)([HJm])|([^\x1b]+)/g)) {
      if (text !== undefined) {
        for (let i = 0; i < text.length && this.at < ROWS * COLUMNS; i++) {
          this.chars[this.at] = text.charCodeAt(i);
          this.inks[this.at++] = this.pen;
        }
      } else if (command === "H") {
        const [row, column] = numbers.split(";").map(Number);
        this.at = (row - 1) * COLUMNS + column - 1;
      } else if (command === "J") {
        this.chars.fill(32);
        this.inks.fill(7);
      } else {
        for (const code of numbers.split(";").map(Number)) {
          if (code === 0) this.pen = 7;
          else if (code === 7) this.pen |= 16;
          else this.pen = (this.pen & 16) | (code >= 90 ? code - 82 : code - 30);
        }
      }
    }
  }

  save() {
    return { chars: this.chars.slice(), inks: this.inks.slice(), at: this.at, pen: this.pen };
  }

  restore(saved) {
    this.chars.set(saved.chars);
    this.inks.set(saved.inks);
    this.at = saved.at;
    this.pen = saved.pen;
  }

  line(row) {
    return String.fromCharCode(...this.chars.subarray(row * COLUMNS, (row + 1) * COLUMNS));
  }
}

/** One game: the changes of every step, and whole screens now and then. */
class Recording {
  constructor(text) {
    const lines = text.trimEnd().split("\n");
    this.info = JSON.parse(lines[0]).nhzoo;
    this.text = text;
    this.changes = [];
    this.keys = [];
    this.marks = [];
    let key = "";
    for (const line of lines.slice(1)) {
      const [time, kind, data] = JSON.parse(line);
      if (kind === "i") key = data;
      if (kind === "m") {
        this.marks.push([Math.round(time * this.info.steps_per_second), data]);
      }
      if (kind === "o") {
        this.changes.push(data);
        this.keys.push(key);
        key = "";
      }
    }
    this.scores = new Float64Array(this.changes.length);
    for (const [frame, score] of this.info.scores) this.scores.fill(score, frame);
    this.terminal = new Terminal();
    this.wholes = [];
    this.changes.forEach((data, frame) => {
      this.terminal.write(data);
      if (frame % KEYFRAME === 0) this.wholes.push(this.terminal.save());
    });
    this.frame = this.changes.length - 1;
  }

  get last() {
    return this.changes.length - 1;
  }

  /** The number of agent's keys before the screen of a frame. */
  step(frame) {
    const [[, head], tail] = this.info.windows;
    return frame <= head ? frame : tail[0] + frame - head - 1;
  }

  /** The last frame at or before a step: of a step in a gap, the one before it. */
  frameOf(step) {
    const [[, head], tail] = this.info.windows;
    const frame = step <= head ? step : !tail || step < tail[0] ? head : head + 1 + step - tail[0];
    return Math.max(0, Math.min(this.last, frame));
  }

  /** Whether the screen after so many keys is in the recording. */
  shows(step) {
    return this.info.windows.some(([first, last]) => first <= step && step <= last);
  }

  keyName(frame) {
    const key = this.keys[frame] ?? "";
    return key && (this.info.keys[key] ?? key);
  }

  seek(frame) {
    const whole = Math.floor(frame / KEYFRAME);
    if (frame < this.frame || whole > Math.floor(this.frame / KEYFRAME)) {
      this.terminal.restore(this.wholes[whole]);
      this.frame = whole * KEYFRAME;
    }
    while (this.frame < frame) this.terminal.write(this.changes[++this.frame]);
  }
}

/** A terminal drawn into a <pre>, one <div> a line; only lines that changed are drawn again. */
class Screen {
  constructor(pre) {
    this.lines = Array.from({ length: ROWS }, () => document.createElement("div"));
    this.drawn = new Array(ROWS).fill("");
    pre.replaceChildren(...this.lines);
  }

  draw(terminal) {
    for (let row = 0; row < ROWS; row++) this.drawLine(terminal, row);
  }

  drawLine(terminal, row) {
    const { chars, inks, at } = terminal;
    const start = row * COLUMNS;
    const cursor = at >= start && at < start + COLUMNS ? at - start : -1;
    const text = terminal.line(row);
    const state = `${cursor} ${text}${inks.subarray(start, start + COLUMNS).join()}`;
    if (this.drawn[row] === state) return;
    this.drawn[row] = state;
    const runs = [];
    for (let from = 0; from < COLUMNS; ) {
      const ink = inks[start + from];
      let to = from + 1;
      if (from !== cursor) {
        while (
          to < COLUMNS && to !== cursor &&
          (inks[start + to] === ink || (chars[start + to] === 32 && ink < 16 && inks[start + to] < 16))
        ) to++;
      }
      const run = document.createElement("span");
      run.className = `c${ink & 15}${ink & 16 ? " reverse" : ""}${from === cursor ? " cursor" : ""}`;
      if (ink & 16) {
        const inner = document.createElement("i");
        inner.textContent = text.slice(from, to);
        run.append(inner);
      } else {
        run.textContent = text.slice(from, to);
      }
      runs.push(run);
      from = to;
    }
    this.lines[row].replaceChildren(...runs);
  }
}

async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).text();
}

/** A recording in a file of its own: a script, since pages on a disk may load nothing else. */
function load(src) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    globalThis.nhzooGame = resolve;
    script.onerror = () => reject(new Error(`${src} cannot be read`));
    script.src = src;
    document.head.append(script);
  });
}

/** The recording of a cast: its text, or packed, in the page or in a file. */
async function read(cast) {
  return new Recording(cast.text ?? (await unpack(cast.data ?? (await load(cast.src)))));
}

function startPlayer(player) {
  const element = (id) => document.getElementById(id);
  const casts = JSON.parse(element("casts").textContent);
  const screen = new Screen(element("screen"));
  const seek = element("seek");
  const speed = element("speed");
  const marks = element("marks");
  const status = element("status");
  const number = new Intl.NumberFormat("en");
  const recordings = new Map();
  let recording = null;
  let wanted = null;
  let playing = false;
  let before = 0;
  let owed = 0;

  function show(frame) {
    recording.seek(Math.max(0, Math.min(recording.last, frame)));
    const now = recording.frame;
    screen.draw(recording.terminal);
    const step = `Step ${number.format(recording.step(now))} of ${number.format(recording.info.steps)}`;
    seek.value = now;
    seek.setAttribute("aria-valuetext", step);
    element("terminal").dataset.frame = now;
    const score = `score ${number.format(recording.scores[now])}`;
    const parts = [document.createTextNode(`${step} · ${score} · `)];
    const pressed = recording.keyName(now);
    if (pressed) {
      const key = document.createElement("b");
      key.id = "key";
      key.textContent = pressed;
      parts.push(document.createTextNode("key pressed: "), key);
    } else {
      parts.push(document.createTextNode("before the first key"));
    }
    if (now === recording.last) parts.push(document.createTextNode(` · ${recording.info.end}`));
    status.replaceChildren(...parts);
    const tidy = (row) => recording.terminal.line(row).trim().replace(/\s+/g, " ");
    element("bottom").textContent = `${tidy(ROWS - 2)}\n${tidy(ROWS - 1)}`;
  }

  function setPlaying(value) {
    playing = value;
    element("play").textContent = playing ? "Pause" : "Play";
    status.setAttribute("aria-live", playing ? "off" : "polite");
    if (playing) {
      if (recording.frame === recording.last) show(0);
      before = performance.now();
      owed = 0;
      requestAnimationFrame(tick);
    }
  }

  function tick(now) {
    if (!playing) return;
    owed += (Math.max(0, Math.min(now - before, 1000)) / 1000) * Number(speed.value);
    before = now;
    if (owed >= 1) {
      show(recording.frame + Math.floor(owed));
      owed %= 1;
    }
    if (recording.frame >= recording.last) setPlaying(false);
    else requestAnimationFrame(tick);
  }

  function go(frame) {
    if (!recording) return;
    if (playing) setPlaying(false);
    show(frame);
  }

  function faster(by) {
    speed.selectedIndex = Math.max(0, Math.min(speed.options.length - 1, speed.selectedIndex + by));
  }

  async function choose(game) {
    wanted = game;
    if (playing) setPlaying(false);
    for (const button of document.querySelectorAll("[data-game]")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.game) === game));
    }
    const cast = casts.find((each) => each.game === game);
    if (!recordings.has(game)) {
      if (cast.src) status.textContent = "Loading the game…";
      recordings.set(game, await read(cast));
    }
    if (wanted !== game) return; // another one was chosen meanwhile
    recording = recordings.get(game);
    seek.max = recording.last;
    element("about").textContent = cast.about;
    element("last").textContent = cast.died ? "Jump to death" : "Jump to the end";
    marks.replaceChildren(new Option("…", ""), ...recording.marks.map(([frame, text]) =>
      new Option(`${number.format(recording.step(frame))}: ${text}`, frame)));
    show(0);
    player.dataset.ready = game;
  }

  for (const button of document.querySelectorAll("[data-game]")) {
    button.addEventListener("click", () => {
      choose(Number(button.dataset.game)).catch(fail);
      if (!player.contains(button)) {
        element("player-title").scrollIntoView();
        element("terminal").focus({ preventScroll: true });
      }
    });
  }
  element("play").addEventListener("click", () => recording && setPlaying(!playing));
  element("first").addEventListener("click", () => go(0));
  element("last").addEventListener("click", () => go(Infinity));
  element("back").addEventListener("click", () => go(recording.frame - 1));
  element("forward").addEventListener("click", () => go(recording.frame + 1));
  seek.addEventListener("input", () => go(Number(seek.value)));
  marks.addEventListener("change", () => {
    if (marks.value !== "") go(Number(marks.value));
    marks.value = "";
  });
  element("large").addEventListener("change", (event) =>
    element("terminal").classList.toggle("large", event.target.checked));
  element("save").addEventListener("click", () => {
    if (!recording) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([recording.text]));
    link.download = `${recording.info.protocol}-game-${recording.info.game}.cast`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
  player.addEventListener("keydown", (event) => {
    if (!recording || event.ctrlKey || event.metaKey || event.altKey) return;
    const tag = event.target.tagName;
    if (tag === "SELECT" || (tag === "BUTTON" && (event.key === " " || event.key === "Enter"))) return;
    if (event.target.type === "checkbox" && event.key === " ") return;
    const far = event.shiftKey ? 50 : 1;
    const actions = {
      " ": () => setPlaying(!playing),
      ArrowLeft: () => go(recording.frame - far),
      ArrowRight: () => go(recording.frame + far),
      Home: () => go(0),
      End: () => go(Infinity),
      d: () => go(Infinity),
      "+": () => faster(1),
      "=": () => faster(1),
      "-": () => faster(-1),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  function fail(error) {
    status.textContent = `This browser cannot show the game (${error.message}).`;
  }
  choose(casts[0].game).catch(fail);
}

const player = document.getElementById("player");
if (player && document.getElementById("casts")) startPlayer(player);
