
const LARGEST = 64 << 20; // bytes of a recording

/** Play the recording of the entry that the address names; it is anybody's, and shown as text. */
async function playEntry() {
  const asked = new URLSearchParams(location.search);
  const entry = asked.get("entry") ?? "";
  const revision = asked.get("revision") ?? "main";
  if (!/^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/.test(entry) || !/^[A-Za-z0-9][\w.-]*$/.test(revision)) {
    throw new Error("the address has to end in ?entry=org/name");
  }
  const repository = `${document.body.dataset.hub}/${entry}`;
  document.getElementById("entry").href = repository;
  document.getElementById("entry").textContent = entry;
  const response = await fetch(`${repository}/resolve/${revision}/replay.cast`);
  if (!response.ok) throw new Error(`${entry} has no recording`);
  if (Number(response.headers.get("Content-Length") ?? 0) > LARGEST) {
    throw new Error("the recording is too large");
  }
  const text = await response.text();
  const { title, nhzoo } = JSON.parse(text.slice(0, text.indexOf("\n")));
  document.getElementById("title").textContent = String(title);
  document.title = String(title);
  const casts = document.createElement("script");
  casts.type = "application/json";
  casts.id = "casts";
  casts.textContent = JSON.stringify([{ game: nhzoo.game, about: "", died: false, text }]);
  document.body.append(casts);
  startPlayer(player);
}

playEntry().catch((error) => {
  document.getElementById("status").textContent = `There is no game to show: ${error.message}.`;
});
