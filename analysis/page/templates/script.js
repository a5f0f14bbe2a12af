(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, text, into, before = null) => { const made = document.createElement(tag); made.textContent = text; into.insertBefore(made, before); return made; };
  const value = (row, column) => {
    const text = (row.cells[column]?.textContent ?? "").trim(), number = parseFloat(text);
    return text === "-" || text === "" ? null : /^[-+.\d]/.test(text) && !Number.isNaN(number) ? number : text;
  };
  const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;

  const sort = (table, head, column) => {
    const up = head.getAttribute("aria-sort") === "ascending" ? -1 : 1, body = table.tBodies[0];
    all("th", table).forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up === 1 ? "ascending" : "descending");
    const rows = [...body.rows].map(row => [value(row, column), row]);
    const last = ([known, row]) => row.cells[0].textContent === "total" ? 2 : known === null ? 1 : 0;
    rows.sort((a, b) => last(a) - last(b) || (last(a) ? 0 : up * compare(a[0], b[0])));
    body.append(...rows.map(([, row]) => row));
  };
  all("table").filter(table => table.tBodies[0].rows.length > 1).forEach(table => all("th", table).forEach((head, column) => {
    const text = head.textContent;
    head.textContent = "";
    make("button", text, head).type = "button";
    head.firstChild.addEventListener("click", () => sort(table, head, column));
  }));

  all("table").filter(table => table.querySelector("[data-kind]")).forEach(table => {
    const rows = [...table.tBodies[0].rows], box = table.parentElement;
    const bar = make("div", "", box.parentElement, box);
    bar.className = "filter";
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", "Show");
    ["all", ...new Set(rows.map(row => row.dataset.kind))].forEach(kind => {
      const of = rows.filter(row => kind === "all" || row.dataset.kind === kind);
      const button = make("button", `${kind} (${of.length})`, bar);
      button.type = "button";
      button.setAttribute("aria-pressed", kind === "all");
      button.addEventListener("click", () => {
        all("button", bar).forEach(other => other.setAttribute("aria-pressed", other === button));
        rows.forEach(row => { row.hidden = !of.includes(row); });
      });
    });
  });

  const hint = () => all(".scroll").forEach(box => {
    const more = box.scrollWidth > box.clientWidth + 1, shown = box.previousElementSibling?.className === "more";
    if (more && !shown) make("p", "Wider than the screen: scroll sideways →", box.parentElement, box).className = "more";
    if (!more && shown && box.clientWidth) box.previousElementSibling.remove();
  });
  hint();
  addEventListener("resize", hint);
  all("details").forEach(fold => fold.addEventListener("toggle", hint));

  let opened = [];
  addEventListener("beforeprint", () => { opened = all("details:not([open])"); opened.forEach(fold => { fold.open = true; }); });
  addEventListener("afterprint", () => opened.forEach(fold => { fold.open = false; }));
})();
