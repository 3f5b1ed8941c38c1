"use strict";
document.querySelectorAll(".needs-script").forEach((part) => { part.hidden = false; });

// A link to a run opens it, and printing shows every run.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", openTarget);
openTarget();
addEventListener("beforeprint", () => document.querySelectorAll("details.run").forEach((run) => { run.open = true; }));

// Search over the index that is embedded in the overview.
const query = document.getElementById("query");
if (query) {
  const entries = JSON.parse(document.getElementById("index").textContent);
  const folded = entries.map(([kind, text]) => `${kind} ${text}`.toLowerCase());
  const found = document.getElementById("found"), hits = document.getElementById("hits"), most = 60;
  query.form.addEventListener("submit", (event) => event.preventDefault());
  query.addEventListener("input", () => {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fitting = words.length ? entries.filter((_, k) => words.every((word) => folded[k].includes(word))) : [];
    found.textContent = !words.length ? "" : fitting.length + " found" + (fitting.length > most ? `, the first ${most}:` : "");
    hits.replaceChildren(...fitting.slice(0, most).map(([kind, text, href]) => {
      const item = document.createElement("li"), link = document.createElement("a"), mark = document.createElement("span");
      link.href = href;
      link.textContent = text;
      mark.textContent = kind;
      mark.className = "kind";
      item.append(mark, " ", link);
      return item;
    }));
  });
}

// Filters of a paper's tables: a published line and ours below it stay or go together.
const filters = document.querySelector("form.filters");
if (filters) {
  const lines = [];
  document.querySelectorAll("table.cells tbody tr").forEach((row) => {
    if (!row.previousElementSibling || !row.matches(".ours:not(.alone)")) lines.push([]);
    lines.at(-1).push(row);
  });
  const fits = (rows) => {
    const cells = rows.flatMap((row) => [...row.cells]);
    return (!filters.run.checked || cells.some((cell) => cell.querySelector("a")))
      && (!filters.verdict.value || cells.some((cell) => cell.classList.contains("v-" + filters.verdict.value)))
      && (!filters.method.value || rows.some((row) => row.dataset.method === filters.method.value));
  };
  const apply = () => {
    let shown = 0;
    lines.forEach((rows) => {
      const fitting = fits(rows);
      rows.forEach((row) => { row.hidden = !fitting; });
      shown += fitting;
    });
    document.querySelectorAll("figure.table").forEach((table) => {
      table.hidden = !table.querySelector("tbody tr:not([hidden])");
    });
    document.getElementById("shown").textContent = shown === lines.length ? "" : `${shown} of ${lines.length} lines shown`;
  };
  filters.addEventListener("input", apply);
  filters.addEventListener("reset", () => setTimeout(apply));
  apply();
}

// Lines of a long listing.
document.querySelectorAll("input[data-lines]").forEach((input) => {
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    document.querySelectorAll(`#${input.dataset.lines} tbody tr`).forEach((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    });
  });
});
