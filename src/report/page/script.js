// Filter and sort of the first plot; the page is complete without it.
(() => {
  const table = document.querySelector("#onsets table, #dates table");
  const form = document.querySelector("form.controls");
  if (table && form) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const nulls = table.tBodies[1] ? [...table.tBodies[1].rows] : [];
    const text = row => row.cells[0].textContent;
    const date = row => "d" in row.dataset ? Number(row.dataset.d) : Infinity;
    const by = {
      date: (a, b) => date(a) - date(b) || a.dataset.o - b.dataset.o,
      concept: (a, b) => text(a).localeCompare(text(b)) || a.dataset.o - b.dataset.o,
      measure: (a, b) => a.dataset.m.localeCompare(b.dataset.m) || date(a) - date(b) || a.dataset.o - b.dataset.o,
    };
    const show = () => {
      const { concept, measure, status } = form.elements;
      const wanted = concept.value.trim().toLowerCase();
      let shown = 0, before = null;
      for (const row of body.rows) {
        row.hidden = !(text(row).toLowerCase().includes(wanted)
          && (!measure.value || row.dataset.m === measure.value)
          && (!status.value || row.dataset.k === status.value));
        if (row.hidden) continue;
        shown += 1;
        row.classList.toggle("again", text(row) === before);
        before = text(row);
      }
      for (const row of nulls) row.hidden = Boolean(measure.value) && row.dataset.m !== measure.value;
      form.querySelector("output").value = `${shown} of ${rows.length} rows`;
    };
    for (const head of table.querySelectorAll("th[data-sort]")) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of table.querySelectorAll("th[data-sort]")) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const order = by[head.dataset.sort];
        body.append(...rows.sort((a, b) => up ? order(a, b) : order(b, a)));
        show();
      });
    }
    form.addEventListener("input", show);
    form.addEventListener("submit", event => event.preventDefault());
    form.hidden = false;
    show();
  }
  // Where a number is from, for those who point at it.
  document.addEventListener("mouseover", event => {
    const at = event.target.closest?.("[data-at]");
    if (!at || at.title) return;
    const [name, row, column] = at.dataset.at.split("/");
    at.title = `${name}.parquet, row ${row}, ${column}`;
  });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(each => { each.open = true; }));
})();
