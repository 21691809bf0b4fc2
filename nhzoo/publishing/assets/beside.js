/** The first step at which two recordings of one game part: 0 if none is shown. */
function firstDifference(a, b) {
  const last = Math.max(a.info.steps, b.info.steps);
  for (let step = 1; step <= last; step++) {
    if (step > a.info.steps || step > b.info.steps) return step; // one of them has ended
    if (!a.shows(step) || !b.shows(step)) return 0; // left out: not known
    if (a.keys[a.frameOf(step)] !== b.keys[b.frameOf(step)]) return step;
  }
  return 0;
}

/** Two recordings of the same game, each agent's own, moved by one slider. */
function startBeside(root) {
  const element = (id) => document.getElementById(`beside-${id}`);
  const casts = JSON.parse(element("casts").textContent);
  const number = new Intl.NumberFormat("en");
  const screens = [0, 1].map((side) => new Screen(element(`screen-${side}`)));
  const choices = [0, 1].map((side) => element(`choice-${side}`));
  const seek = element("seek");
  choices.forEach((choice, side) => {
    choice.replaceChildren(...casts.map((cast, i) => new Option(cast.label, i, i === side, i === side)));
  });
  const recordings = new Map();
  let shown = null;
  let first = 0;
  let step = 0;
  let last = 0;
  let playing = false;
  let before = 0;
  let owed = 0;
  let asked = 0;

  function show(wanted) {
    step = Math.max(0, Math.min(last, wanted));
    shown.forEach((recording, side) => {
      recording.seek(recording.frameOf(step));
      screens[side].draw(recording.terminal);
      const now = recording.frame;
      const parts = [`Score ${number.format(recording.scores[now])}`];
      const pressed = recording.keyName(now);
      if (step > recording.info.steps || now === recording.last) parts.push(recording.info.end);
      else if (!recording.shows(step)) parts.push("this step is left out");
      else if (pressed) parts.push(`key pressed: ${pressed}`);
      const status = element(`status-${side}`);
      status.textContent = parts.join(" · ");
      status.classList.toggle("differs", first > 0 && step === first);
    });
    const text = `Step ${number.format(step)} of ${number.format(last)}`;
    seek.value = step;
    seek.setAttribute("aria-valuetext", text);
    element("step").textContent = text;
    root.dataset.step = step;
  }

  function setPlaying(value) {
    playing = value;
    element("play").textContent = playing ? "Pause" : "Play";
    if (!playing) return;
    if (step === last) show(0);
    before = performance.now();
    owed = 0;
    requestAnimationFrame(tick);
  }

  function tick(now) {
    if (!playing) return;
    owed += (Math.max(0, Math.min(now - before, 1000)) / 1000) * Number(element("speed").value);
    before = now;
    if (owed >= 1) {
      show(step + Math.floor(owed));
      owed %= 1;
    }
    if (step >= last) setPlaying(false);
    else requestAnimationFrame(tick);
  }

  function go(wanted) {
    if (!shown) return;
    if (playing) setPlaying(false);
    show(wanted);
  }

  async function choose() {
    const turn = ++asked;
    if (playing) setPlaying(false);
    element("first-difference").textContent = "Reading the games…";
    const chosen = choices.map((choice) => Number(choice.value));
    for (const one of chosen) {
      if (!recordings.has(one)) recordings.set(one, await read(casts[one]));
    }
    if (turn !== asked) return; // others were chosen meanwhile
    // An agent beside itself takes two recordings: each has a place of its own.
    shown = chosen.map((one) => recordings.get(one));
    if (shown[0] === shown[1]) shown[1] = new Recording(shown[0].text);
    chosen.forEach((one, side) => {
      element(`about-${side}`).textContent = casts[one].about;
    });
    first = firstDifference(...shown);
    last = Math.max(...shown.map((recording) => recording.info.steps));
    seek.max = last;
    element("marks").replaceChildren(...(first ? [new Option("", first)] : []));
    element("jump").disabled = !first;
    const keys = shown.map((recording) => first <= recording.info.steps
      ? recording.keyName(recording.frameOf(first)) : "has ended");
    element("first-difference").textContent = first
      ? `First difference at step ${number.format(first)}: ${keys.join(" on the left, ")} on the right.`
      : "No difference in the steps that are shown.";
    show(0);
    root.dataset.ready = `${chosen.join("-")}`;
    root.dataset.first = first;
  }

  function fail(error) {
    element("first-difference").textContent = `This browser cannot show the games (${error.message}).`;
  }
  for (const choice of choices) choice.addEventListener("change", () => choose().catch(fail));
  element("play").addEventListener("click", () => shown && setPlaying(!playing));
  element("start").addEventListener("click", () => go(0));
  element("back").addEventListener("click", () => go(step - 1));
  element("forward").addEventListener("click", () => go(step + 1));
  element("end").addEventListener("click", () => go(last));
  element("jump").addEventListener("click", () => go(first));
  seek.addEventListener("input", () => go(Number(seek.value)));
  choose().catch(fail);
}

const beside = document.getElementById("beside");
if (beside && !beside.hidden) startBeside(beside);
