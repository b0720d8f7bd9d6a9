"use strict";
const say = (text) => { document.getElementById("said").textContent = text; };

for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending";
      const numbers = head.hasAttribute("data-numbers");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const known = (row) => !numbers || (value(row) !== "" && !Number.isNaN(Number(value(row))));
      const rows = [...body.rows].sort((a, b) => {
        if (known(a) !== known(b)) return known(a) ? -1 : 1; // what is not known comes last, either way
        if (!known(a)) return 0;
        const order = numbers ? Number(value(a)) - Number(value(b)) : value(a).localeCompare(value(b), undefined, { numeric: true });
        return up ? order : -order;
      });
      body.append(...rows);
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      say(`Sorted by ${button.textContent.trim()}, ${up ? "smallest" : "largest"} first.`);
    });
  });
}

for (const form of document.querySelectorAll("form[data-filters]")) {
  const table = document.getElementById(form.dataset.filters);
  const count = form.querySelector("output");
  const apply = () => {
    const asked = Object.fromEntries(new FormData(form));
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const fits = Object.entries(asked).every(([name, wanted]) => !wanted || (name === "words"
        ? row.textContent.toLowerCase().includes(wanted.toLowerCase())
        : row.dataset[name] === wanted));
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${table.tBodies[0].rows.length} rows shown`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}

for (const button of document.querySelectorAll(".code button")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch { // not allowed in a frame, or from a file: select it, and copy as of old
      const range = document.createRange();
      range.selectNodeContents(code);
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      document.execCommand("copy");
    }
    say("Copied.");
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
