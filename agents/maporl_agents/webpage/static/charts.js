// Charts as inline SVG. Colours come from the style sheet by class, so they follow the dark mode.

// Round steps between the ticks of an axis that covers [low, high].
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= rough * 0.75);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) found.push(k * step);
  return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

// The width of a chart that fills the page: drawn at its real size, so that text stays readable.
const wide = () => Math.max(280, Math.min(1000, document.getElementById("main").clientWidth - 38));

// The frame of a chart: axes, grid and the functions that place a point.
function frame(size, xs, ys, labels) {
  const [width, height] = size;
  const box = { left: 48, right: width - 12, top: 12, bottom: height - 34 };
  const x = (v) => box.left + ((v - xs[0]) / (xs[1] - xs[0] || 1)) * (box.right - box.left);
  const y = (v) => box.bottom - ((v - ys[0]) / (ys[1] - ys[0] || 1)) * (box.bottom - box.top);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": labels.title });
  const marks = ticks(ys[0], ys[1], labels.percent ? 5 : 4);
  for (const v of marks.found) {
    root.append(svg("line", { class: "axis", x1: box.left, x2: box.right, y1: y(v), y2: y(v) }));
    const text = labels.percent ? `${Math.round(100 * v)} %` : v.toFixed(marks.digits);
    root.append(svg("text", { x: box.left - 8, y: y(v) + 4, "text-anchor": "end" }, text));
  }
  for (const [v, text] of labels.x) {
    root.append(svg("text", { x: x(v), y: box.bottom + 18, "text-anchor": "middle" }, text));
  }
  return { root, x, y, box };
}

// Limits of accuracies: whole tenths around the data.
function tenths(values) {
  const low = Math.max(0, Math.floor(10 * Math.min(...values) - 0.2) / 10);
  const high = Math.min(1, Math.ceil(10 * Math.max(...values) + 0.2) / 10);
  return [low, Math.max(high, low + 0.1)];
}

const path = (corners) => "M" + corners.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join("L");

const within = (share) => Math.min(1, Math.max(0, share));

// Accuracy by turn: one line per series; intervals of methods as bands, of others as strokes.
function turnChart(series, title) {
  const values = series.flatMap((s) => s.points.flatMap((p) => [within(p.mean - (p.half || 0)), within(p.mean + (p.half || 0))]));
  const turns = Math.max(...series.map((s) => s.points.length));
  const labels = Array.from({ length: turns }, (_, t) => [t + 1, `turn ${t + 1}`]);
  const f = frame([wide(), 340], [0.8, turns + 0.2], tenths(values), { x: labels, percent: true, title });
  for (const s of series) {
    const at = s.points.map((p, t) => [f.x(t + 1), p]);
    if (s.role !== "method") {
      for (const [x, p] of at.filter(([, p]) => p.half !== null)) {
        f.root.append(svg("line", { class: `spread ${s.colour}`, x1: x, x2: x, y1: f.y(within(p.mean - p.half)), y2: f.y(within(p.mean + p.half)) }));
      }
    } else if (s.points.some((p) => p.half !== null)) {
      const upper = at.map(([x, p]) => [x, f.y(within(p.mean + (p.half || 0)))]);
      const lower = at.map(([x, p]) => [x, f.y(within(p.mean - (p.half || 0)))]).reverse();
      f.root.append(svg("path", { class: `band ${s.colour}`, d: path([...upper, ...lower]) + "Z" }));
    }
  }
  for (const s of series) {
    const at = s.points.map((p, t) => [f.x(t + 1), f.y(p.mean)]);
    f.root.append(svg("path", { class: `line ${s.colour} ${s.dashed ? "dashed" : ""}`, d: path(at), "fill-opacity": 0 }));
    at.forEach(([x, y], t) => f.root.append(
      svg("circle", { class: `flat ${s.colour}`, cx: x, cy: y, r: 4 },
        svg("title", {}, `${s.name}, turn ${t + 1}: ${accuracy(s.points[t])} %`))));
  }
  return f.root;
}

// Grouped bars: one group per stage, one bar per turn, whiskers for the intervals.
function barChart(groups, title) {
  const most = Math.max(...groups.map((g) => g.points.length));
  const labels = groups.map((g, i) => [i + 0.5, g.name]);
  const f = frame([430, 280], [0, groups.length], [0, 1], { x: labels, percent: true, title });
  const unit = f.x(1) - f.x(0);
  const width = Math.min(46, (unit * 0.76) / most);
  groups.forEach((g, i) => g.points.forEach((p, t) => {
    const left = f.x(i + 0.5) + (t - g.points.length / 2) * width;
    const middle = left + width / 2;
    const top = within(p.mean + (p.half || 0));
    f.root.append(
      svg("rect", { class: `flat t${Math.min(t, 5)}`, x: left + 1.5, y: f.y(p.mean), width: width - 3, height: Math.max(0, f.box.bottom - f.y(p.mean)), rx: 2 },
        svg("title", {}, `${g.name}, turn ${t + 1}: ${accuracy(p)} %`)));
    if (p.half) f.root.append(svg("line", { class: "whisker", x1: middle, x2: middle, y1: f.y(within(p.mean - p.half)), y2: f.y(top) }));
    f.root.append(svg("text", { class: "strong", x: middle, y: f.y(top) - 5, "text-anchor": "middle" }, (100 * p.mean).toFixed(0)));
  }));
  return f.root;
}

// A line per series over training steps, with the range over seeds.
function stepChart(lines, seeds, title, size) {
  const all = lines.flatMap((l) => l.points);
  const steps = all.map((p) => p[0]);
  const low = Math.min(...all.map((p) => p[2])), high = Math.max(...all.map((p) => p[3]));
  const bottom = low >= 0 && low < 0.5 * high ? 0 : low;
  const xs = [Math.min(...steps), Math.max(...steps)];
  const labels = ticks(xs[0], xs[1], 5).found.map((v) => [v, String(v)]);
  const pad = (high - bottom) * 0.06 || Math.abs(high) * 0.1 || 1;
  const f = frame(size, xs, [bottom, high + pad], { x: labels, title });
  lines.forEach((l) => {
    if (seeds > 1) {
      const upper = l.points.map((p) => [f.x(p[0]), f.y(p[3])]);
      const lower = l.points.map((p) => [f.x(p[0]), f.y(p[2])]).reverse();
      f.root.append(svg("path", { class: `band ${l.colour}`, d: path([...upper, ...lower]) + "Z" }));
    }
    f.root.append(svg("path", { class: `line ${l.colour}`, d: path(l.points.map((p) => [f.x(p[0]), f.y(p[1])])), "fill-opacity": 0 }));
  });
  return f.root;
}

// Two by two: from right or wrong to right or wrong; the changes stand out.
function flipChart(matrix, title) {
  const root = svg("svg", { viewBox: "0 0 246 176", role: "img", "aria-label": `${title}: ` +
    `stayed right ${percent(matrix[0][0])}, right to wrong ${percent(matrix[0][1])}, ` +
    `wrong to right ${percent(matrix[1][0])}, stayed wrong ${percent(matrix[1][1])}` });
  const kinds = [["stay", "lost"], ["won", "stay"]];
  ["→ right ✓", "→ wrong ✕"].forEach((text, j) => root.append(svg("text", { x: 110 + 88 * j, y: 14, "text-anchor": "middle" }, text)));
  ["✓ right", "✕ wrong"].forEach((text, i) => root.append(svg("text", { x: 58, y: 64 + 72 * i, "text-anchor": "end" }, text)));
  matrix.forEach((row, i) => row.forEach((share, j) => {
    const place = { x: 68 + 88 * j, y: 24 + 72 * i, width: 84, height: 68, rx: 6 };
    const strength = kinds[i][j] === "stay" ? 0.25 + 0.75 * share : Math.min(0.42, 0.1 + 1.2 * share);
    root.append(svg("rect", { ...place, class: `cell-${kinds[i][j]}`, "fill-opacity": strength.toFixed(3) }));
    root.append(svg("rect", { ...place, class: "cell-edge" }));
    root.append(svg("text", { class: "number", x: place.x + 42, y: place.y + 39, "text-anchor": "middle" }, percent(share)));
  }));
  return root;
}

// A stroke of a series' colour, for legends.
const swatch = (colour, dashed) => svg("svg", { width: 22, height: 10, "aria-hidden": "true" },
  svg("line", { class: `line ${colour} ${dashed ? "dashed" : ""}`, x1: 1, x2: 21, y1: 5, y2: 5 }));
