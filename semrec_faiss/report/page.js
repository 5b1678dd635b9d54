(() => {
  const data = document.getElementById("chart-data");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  const draw = () => {
    const { charts, config } = JSON.parse(data.textContent);
    const scheme = dark.matches ? "dark" : "light";
    for (const [name, spec] of Object.entries(charts)) {
      const place = document.getElementById("chart-" + name);
      vegaEmbed(place, spec, {
        config: config[scheme],
        actions: { export: true, source: false, compiled: false, editor: false },
        tooltip: { theme: scheme },
        renderer: "svg",
        downloadFileName: name,
      }).catch((error) => {
        console.error(error);
        place.textContent = "This chart could not be drawn: " + error.message;
      });
    }
  };
  if (data) {
    draw();
    dark.addEventListener("change", draw);
  }

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const given = cell.dataset.sort;
    if (given === undefined) return cell.textContent.trim() === "–" ? null : cell.textContent.trim();
    return given !== "" && Number.isFinite(Number(given)) ? Number(given) : given;
  };
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  };
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const body = head.closest("table").tBodies[0];
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const rows = [...body.rows].map((row) => [valueOf(row, head.cellIndex), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return compare(a, b); // what is not there stays last
        return ascending ? compare(a, b) : compare(b, a);
      });
      body.append(...rows.map(([, row]) => row));
    });
  }
})();
