"use strict";

// Filters: rows of all boards that do not match are hidden; how many are left is said.
const filters = document.getElementById("filters");
if (filters) {
  const field = (name) => filters.querySelector(`[name=${name}]`);
  const rows = [...document.querySelectorAll("table.board tbody tr")].map((row) => ({
    row,
    words: row.textContent.toLowerCase(),
    kind: row.dataset.kind,
    tier: Number(row.dataset.tier),
    size: row.dataset.size ? Number(row.dataset.size) : null,
    gone: row.dataset.status === "removed",
  }));
  const shown = filters.querySelector("output");
  const apply = () => {
    const words = field("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const kind = field("kind").value;
    const tier = Number(field("tier").value);
    const size = field("size").value ? Number(field("size").value) : null;
    const gone = field("gone").checked;
    let left = 0;
    for (const each of rows) {
      const fits =
        words.every((word) => each.words.includes(word)) &&
        (!kind || each.kind === kind) &&
        each.tier >= tier &&
        (size === null || (each.size !== null && each.size <= size)) &&
        (gone || !each.gone);
      if (each.row.hidden === fits) each.row.hidden = !fits;
      if (fits) left++;
    }
    shown.textContent = `${left.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows shown`;
  };
  const box = filters.parentElement;
  const narrow = matchMedia("(max-width: 40rem)");
  const fold = () => { box.open = !narrow.matches; };
  box.hidden = false;
  fold();
  narrow.addEventListener("change", fold);
  filters.addEventListener("input", apply);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.querySelector("[data-reset]").addEventListener("click", () => {
    for (const input of filters.querySelectorAll("input, select")) {
      if (input.type === "checkbox") input.checked = true;
      else input.value = "";
    }
    field("tier").value = "0";
    apply();
  });
  apply();
}
