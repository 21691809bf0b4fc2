const LARGEST = 64 << 20; // bytes of a recording

/** The recording of an entry: anybody's text, and shown as text. */
async function recordingOf(entry, revision) {
  if (!/^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/.test(entry) || !/^[A-Za-z0-9][\w.-]*$/.test(revision)) {
    throw new Error("the address has to end in ?entry=org/name");
  }
  const response = await fetch(`${document.body.dataset.hub}/${entry}/resolve/${revision}/replay.cast`);
  if (!response.ok) throw new Error(`${entry} has no recording`);
  if (Number(response.headers.get("Content-Length") ?? 0) > LARGEST) {
    throw new Error("the recording is too large");
  }
  const text = await response.text();
  const { title, nhzoo } = JSON.parse(text.slice(0, text.indexOf("\n")));
  return { text, title: String(title), nhzoo };
}

/** Play the recording of the entry that the address names, or two entries' on the same game. */
async function playEntry() {
  const asked = new URLSearchParams(location.search);
  const entry = asked.get("entry") ?? "";
  const other = asked.get("beside");
  const found = [await recordingOf(entry, asked.get("revision") ?? "main")];
  document.getElementById("entry").href = `${document.body.dataset.hub}/${entry}`;
  document.getElementById("entry").textContent = entry;
  if (other !== null) {
    found.push(await recordingOf(other, "main"));
    const games = found.map(({ nhzoo }) => `game ${nhzoo.game} of ${nhzoo.protocol}`);
    if (games[0] !== games[1]) throw new Error(`the one is of ${games[0]}, the other of ${games[1]}`);
  }
  const title = found.map((one) => one.title).join(" · ");
  document.getElementById("title").textContent = title;
  document.title = title;
  const casts = found.map(({ text, nhzoo }) => (
    { game: nhzoo.game, label: String(nhzoo.agent), about: "", died: false, text }
  ));
  if (other === null) {
    const script = document.createElement("script");
    script.type = "application/json";
    script.id = "casts";
    script.textContent = JSON.stringify(casts);
    document.body.append(script);
    startPlayer(player);
    return;
  }
  player.hidden = true;
  beside.hidden = false;
  document.getElementById("beside-casts").textContent = JSON.stringify(casts);
  startBeside(beside);
}

playEntry().catch((error) => {
  document.getElementById("status").textContent = `There is no game to show: ${error.message}.`;
});
