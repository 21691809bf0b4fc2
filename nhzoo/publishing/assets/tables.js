"use strict";

// Sorting: every heading of a sortable table is a button; numbers are compared as numbers.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value ?? cell.textContent;
  };
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const numeric = !head.classList.contains("t");
      const first = numeric && column > 0 ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const number = (text) => (text === "" ? null : Number(text.replace(/[,%]/g, "")));
      const key = numeric ? number : (text) => text;
      const rows = [...table.tBodies[0].rows].map((row) => [key(value(row, column)), row]);
      // What is not known is last, whichever way.
      rows.sort(([a], [b]) => (a === null) - (b === null) || sign * (a < b ? -1 : a > b ? 1 : 0));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}
