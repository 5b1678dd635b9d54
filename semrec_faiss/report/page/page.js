(() => {
  const data = document.getElementById("chart-data");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  const pen = document.createElement("canvas").getContext("2d");
  const FACE = getComputedStyle(document.body).fontFamily;
  const widthOf = (text, size) => {
    pen.font = `600 ${size}px ${FACE}`;
    return pen.measureText(text).width;
  };

  // Break a text into lines of so many pixels: Vega draws each line that it is given, and breaks none itself.
  const lines = (text, room, size) => {
    const found = [];
    for (const word of [text].flat().join(" ").split(" ")) {
      const line = found.length && `${found[found.length - 1]} ${word}`;
      if (line && widthOf(line, size) <= room) found[found.length - 1] = line;
      else found.push(word);
    }
    return found;
  };

  // The names along an axis, in every layer that has it.
  const namesOf = (spec, field) => {
    const rows = (part) => [...((part.data && part.data.values) || []), ...(part.layer || []).flatMap(rows)];
    return [...new Set(rows(spec).map((row) => row[field]))].filter((name) => typeof name === "string");
  };

  // Let names on the left take less than half the width, in as many lines as they need, and the chart grow by these.
  const NAME = 11;
  const breakNames = (spec, width) => {
    const encodings = [spec, ...(spec.layer || [])].map((part) => part.encoding && part.encoding.y);
    const axes = encodings.filter((y) => y && y.axis && y.axis.labelLimit);
    if (!axes.length) return;
    const names = namesOf(spec, axes[0].field);
    const room = Math.min(axes[0].axis.labelLimit, 0.42 * width);
    if (names.every((name) => name.split("\n").every((line) => widthOf(line, NAME) <= room))) return;
    const broken = Object.fromEntries(names.map((name) => [name, lines(name.replaceAll("\n", " "), room, NAME)]));
    const most = Math.max(...Object.values(broken).map((name) => name.length));
    for (const y of axes) {
      y.axis.labelExpr = `(${JSON.stringify(broken)})[datum.label]`;
      y.axis.labelLimit = room + 20;
      y.axis.labelLineHeight = 13;
    }
    spec.height = Math.max(spec.height, names.length * (13 * most + 9));
  };

  // Numbers after bars take as many pixels on a narrow page: leave them a larger share of the axis.
  const NUMBER = 56;
  const leaveRoom = (spec, width) => {
    const layers = spec.layer || [];
    if (!layers.some((layer) => layer.mark.type === "bar") || !layers.some((layer) => layer.mark.type === "text")) return;
    for (const { encoding } of layers) {
      const domain = encoding && encoding.x && encoding.x.scale && encoding.x.scale.domain;
      if (domain && domain[0] === 0) domain[1] *= Math.max(1, (1 - NUMBER / 480) / (1 - NUMBER / Math.min(480, width / 2)));
    }
  };

  // Make a chart as wide as the page: panels beside each other or below, legends and titles in as many lines as needed.
  const AXIS = 80;
  const LEGENDS = ["color", "fill", "stroke", "shape", "strokeDash"];
  const fit = (spec, width) => {
    breakNames(spec, width);
    leaveRoom(spec, width);
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
      spec.title.text = lines(spec.title.text, width - 56, 14);
      if (spec.title.subtitle) spec.title.subtitle = lines(spec.title.subtitle, width - 30, 12);
    }
    const walk = (part, room, channel) => {
      if (!part || typeof part !== "object") return;
      const x = part.encoding && part.encoding.x;
      if (x && typeof x.title === "string") x.title = lines(x.title, room, 12);
      const names = LEGENDS.includes(channel) && part.legend !== null && part.scale && part.scale.domain;
      if (Array.isArray(names)) {
        part.legend = part.legend || {};
        const widths = names.map((name) => widthOf(String(name), 12) + 34);
        const all = widths.reduce((sum, one) => sum + one, 0);
        const columns = all <= width - 30 ? names.length : Math.floor((width - 30) / Math.max(...widths));
        part.legend.columns = Math.max(1, Math.min(names.length, columns));
        part.legend.labelLimit = width - 60;
      }
      for (const [name, inner] of Object.entries(part)) if (name !== "data") walk(inner, part.width > 0 ? part.width + 40 : room, name);
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

  // Once: what a reader opens on a narrow screen stays open.
  if (window.matchMedia("(max-width: 34rem)").matches) {
    for (const section of document.querySelectorAll("details.unless-narrow")) section.open = false;
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
