(() => {
  const data = document.getElementById("chart-data");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  // Break a text into lines of so many letters: Vega draws each line that it is given, and breaks none itself.
  const lines = (text, letters) => {
    const found = [""];
    for (const word of [text].flat().join(" ").split(" ")) {
      const line = found[found.length - 1];
      if (line && line.length + word.length >= letters) found.push(word);
      else found[found.length - 1] = line ? line + " " + word : word;
    }
    return found;
  };

  // Make a chart as wide as the page: panels beside each other or below, legends and titles in as many lines as needed.
  const AXIS = 80;
  const fit = (spec, width) => {
    if (spec.concat) {
      spec.columns = Math.max(1, Math.min(spec.columns, Math.floor(width / 270)));
      for (const panel of spec.concat) panel.width = Math.floor(width / spec.columns) - AXIS;
    }
    if (spec.facet && spec.spec) {
      const count = Math.max(1, Math.min(spec.columns || 1, Math.floor(width / 230)));
      spec.columns = count;
      spec.spec.width = Math.floor(width / count) - 50;
    }
    if (spec.title && spec.title.text) {
      spec.title.text = lines(spec.title.text, (width - 40) / 8);
      if (spec.title.subtitle) spec.title.subtitle = lines(spec.title.subtitle, (width - 40) / 6.2);
    }
    const walk = (part, room) => {
      if (!part || typeof part !== "object") return;
      const x = part.encoding && part.encoding.x;
      if (x && typeof x.title === "string") x.title = lines(x.title, room / 6.6);
      const names = part.legend && part.scale && part.scale.domain;
      if (Array.isArray(names)) {
        const widths = names.map((name) => String(name).length * 7 + 30);
        const all = widths.reduce((sum, one) => sum + one, 0);
        const columns = all <= width - 40 ? names.length : Math.floor((width - 40) / Math.max(...widths));
        part.legend.columns = Math.max(1, Math.min(names.length, columns));
      }
      if (part.axis && part.axis.labelLimit) part.axis.labelLimit = Math.min(part.axis.labelLimit, 0.45 * width);
      for (const [name, inner] of Object.entries(part)) if (name !== "data") walk(inner, part.width > 0 ? part.width + 40 : room);
    };
    walk(spec, width - 100);
    return spec;
  };

  const draw = () => {
    const { charts, config, dark: onDark } = JSON.parse(data.textContent);
    const scheme = dark.matches ? "dark" : "light";
    const paint = (text) => (dark.matches ? text.replace(/#[0-9a-f]{6}/g, (colour) => onDark[colour] || colour) : text);
    for (const [name, spec] of Object.entries(charts)) {
      const place = document.getElementById("chart-" + name);
      const width = document.querySelector("main").clientWidth;
      vegaEmbed(place, fit(JSON.parse(paint(JSON.stringify(spec))), width), {
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
    let drawnFor = window.innerWidth;
    let waiting;
    window.addEventListener("resize", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        if (window.innerWidth !== drawnFor) draw();
        drawnFor = window.innerWidth;
      }, 250);
    });
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
