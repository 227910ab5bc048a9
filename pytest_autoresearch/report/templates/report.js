"use strict";
// Sorts, filters and, while the campaign runs, reloads the page, which is complete without it.
(() => {
  const body = document.body, table = document.getElementById("table");
  const rows = [...table.tBodies], form = document.getElementById("filter");
  const key = "autoresearch " + body.dataset.tag;
  const state = { text: "", verdict: "", proposer: "", column: -1, down: false, open: [], y: 0, paused: false };
  try { Object.assign(state, JSON.parse(sessionStorage.getItem(key) || "{}")); } catch { /* no storage */ }
  const opener = (row) => row.querySelector("details");
  const save = () => {
    state.open = rows.filter((row) => opener(row).open).map((row) => row.id);
    state.y = scrollY;
    try { sessionStorage.setItem(key, JSON.stringify(state)); } catch { /* no storage */ }
  };

  const heads = [...table.tHead.rows[0].cells];
  const worth = (row, column, numeric) => {
    const text = row.rows[0].cells[column].textContent.trim();
    return numeric ? (text === "" ? NaN : parseFloat(text)) : text.toLowerCase();
  };
  const sort = () => {
    const head = heads[state.column];
    if (!head) return;
    const numeric = head.dataset.sort === "num", sign = state.down ? -1 : 1;
    const keyed = rows.map((row, place) => ({ row, place, worth: worth(row, state.column, numeric) }));
    keyed.sort((a, b) => {
      const blank = (a.worth !== a.worth) - (b.worth !== b.worth);
      return blank || sign * ((a.worth > b.worth) - (a.worth < b.worth)) || a.place - b.place;
    });
    table.append(...keyed.map((one) => one.row));
    heads.forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent.trim();
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      state.down = state.column === column && !state.down;
      state.column = column;
      sort();
    });
  });

  const texts = new Map();
  const textOf = (row) => {
    if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase());
    return texts.get(row);
  };
  const filter = () => {
    const wanted = state.text.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const fits = (!state.verdict || row.dataset.v === state.verdict)
        && (!state.proposer || row.dataset.p === state.proposer)
        && (!wanted || textOf(row).includes(wanted));
      row.hidden = !fits;
      shown += fits;
    }
    document.getElementById("count").textContent = `${shown} of ${rows.length} shown`;
  };
  for (const name of ["text", "verdict", "proposer"]) {
    form.elements[name].value = state[name];
    state[name] = form.elements[name].value;
    form.elements[name].addEventListener("input", (event) => {
      state[name] = event.target.value;
      filter();
    });
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;

  document.addEventListener("click", (event) => {
    const mark = event.target.closest("[data-s]");
    if (mark) location.hash = "s" + mark.dataset.s;
  });
  const reveal = () => {
    const row = document.getElementById(location.hash.slice(1));
    if (!rows.includes(row)) return;
    row.hidden = false;
    opener(row).open = true;
    row.scrollIntoView({ block: "center" });
    opener(row).firstElementChild.focus({ preventScroll: true });
  };
  addEventListener("hashchange", reveal);

  sort();
  filter();
  for (const id of state.open) {
    const row = document.getElementById(id);
    if (rows.includes(row)) opener(row).open = true;
  }
  addEventListener("pagehide", save);
  if (!body.dataset.reload) { reveal(); return; }

  const pause = document.getElementById("pause");
  const shown = () => {
    pause.setAttribute("aria-pressed", String(state.paused));
    pause.textContent = state.paused ? "Resume" : "Pause";
  };
  pause.hidden = false;
  pause.addEventListener("click", () => { state.paused = !state.paused; shown(); });
  shown();
  scrollTo(0, state.y);
  setInterval(() => {
    const busy = form.contains(document.activeElement);
    if (!state.paused && !busy) { save(); location.reload(); }
  }, 1000 * Number(body.dataset.reload));
})();
