// The sections of the page above the debates. Each takes the data and returns elements, or null.

const data = JSON.parse(document.getElementById("data").textContent);
const STAGE = { before: "before training", after: "after training" };
const several = data.arms.length > 1;
const nameOf = (s) => (several ? `${s.label}, ${s.stage}` : STAGE[s.stage]);
const of = (list, decoding, arm) => list.filter((s) => s.decoding === decoding && (!arm || s.arm === arm));
const decodings = ["sampled", "greedy"].filter((d) => of(data.curves, d).length);
const BOTH = decodings.map((d) => [d, d]);

const capital = (text) => text[0].toUpperCase() + text.slice(1);

function section(id, title, hint, ...content) {
  return el("section", { id, "aria-labelledby": `${id}-title` },
    el("h2", { id: `${id}-title` }, title), hint ? el("p", { class: "hint" }, hint) : null, content);
}

function head() {
  return [
    el("p", { class: "kicker" }, data.kind === "run" ? "MAPoRL run" : "MAPoRL study"),
    el("h1", {}, data.title),
    data.claim ? el("p", { class: "lead" }, data.claim) : null,
    claims(),
    el("dl", { class: "facts" }, data.facts.map(([name, value]) =>
      el("div", {}, el("dt", {}, name), el("dd", { class: name === "command" ? "mono" : null }, value)))),
    tiles(),
  ].filter(Boolean);
}

function claims() {
  if (!data.claims.sampled.length) return null;
  const rows = data.claims.sampled.map((c, i) => [c.words, el("b", {}, c.judgement), data.claims.greedy[i].judgement]);
  return table("Judged by rule from the sentences below, sampled and greedy.", ["claim", "sampled", "greedy"], rows, "stack");
}

function tiles() {
  const arm = data.arms.find((a) => a.role === "method") || data.arms[0];
  if (!arm || !arm.last) return null;
  const tile = (value, text, main) => el("div", { class: main ? "tile main" : "tile" }, el("b", {}, value), el("span", {}, text));
  const big = (estimate) => [`${inPercent(estimate.mean)} %`, estimate.half === null ? null : el("small", {}, ` ± ${inPercent(estimate.half)}`)];
  return el("div", { class: "tiles" },
    tile(big(arm.last), `${several ? `${arm.label}: ` : ""}${data.metric}, last turn, sampled`, true),
    arm.before ? tile(`${points(arm.last.mean - arm.before.mean)}`, `points gained by training, from ${accuracy(arm.before)} %`) : null,
    tile(`${points(arm.last.mean - arm.first.mean)}`, `points from turn 1 to the last turn, from ${accuracy(arm.first)} %`),
    arm.greedy ? tile(big(arm.greedy), "the same, greedy") : null,
    arm.train_tokens ? tile(whole(arm.train_tokens), `tokens trained on, in ${whole(arm.train_answers)} messages${several ? " (per seed)" : ""}`) : null);
}

function sentences() {
  const list = el("ul", { class: "said" });
  const signs = { supports: "▲", contradicts: "▼", open: "◆", neutral: "●" };
  const draw = (decoding) => show(list, data.verdicts[decoding].map((v) =>
    el("li", {}, el("span", { class: v.kind, "aria-hidden": "true" }, signs[v.kind]),
      el("span", {}, el("span", { class: "hidden" }, `${v.kind}: `), several ? el("b", {}, `${v.arm}. `) : null, v.sentence))));
  const some = decodings.filter((d) => data.verdicts[d].length);
  if (!some.length && !data.notes.length) return null;
  if (some.length) draw(some[0]);
  return section("said", "What the numbers say",
    `Written by rule from the figures. ▲ speaks for the method, ▼ against it, ◆ leaves it open, ● is a difference that is neither. Scores from 0 to 1; ${data.interval}.`,
    some.length > 1 ? el("div", { class: "bar" }, choice("Decoding", BOTH, some[0], draw)) : null,
    list, data.notes.map((note) => el("p", { class: "note" }, note)));
}

// --- Accuracy by turn ---

function byTurn() {
  if (!data.curves.length) return null;
  const chart = el("div", {}), legend = el("div", { class: "legend" });
  const arms = [...new Set(data.curves.map((s) => s.arm))];
  const styled = data.curves.map((s) => ({ ...s, name: nameOf(s), dashed: several && s.stage === "before",
    colour: several ? `c${arms.indexOf(s.arm) % 6}` : s.stage === "before" ? "c5" : "c0" }));
  const off = new Set(styled.filter((s) => several && s.stage === "before" && s.role !== "method").map((s) => s.name));
  let decoding = decodings[0];
  function draw() {
    const all = of(styled, decoding), seen = all.filter((s) => !off.has(s.name));
    show(legend, all.map((s) => el("button", { type: "button", "aria-pressed": String(!off.has(s.name)),
      onclick: () => { if (!off.delete(s.name)) off.add(s.name); draw(); } }, swatch(s.colour, s.dashed), s.name)));
    show(chart, seen.length ? turnChart(seen, `${data.metric} by turn, ${decoding}`) : el("p", { class: "hint" }, "Nothing chosen."), numbers(all));
  }
  draw();
  return section("turns", "Accuracy by turn", `${capital(data.metric)} on held-out questions. Bands${several ? " and strokes" : ""}: ${data.interval}.`,
    el("div", { class: "card" },
      decodings.length > 1 ? el("div", { class: "bar" }, choice("Decoding", BOTH, decoding, (d) => { decoding = d; draw(); })) : null,
      legend, chart));
}

function numbers(series) {
  const turns = Math.max(...series.map((s) => s.points.length));
  const head = ["", ...Array.from({ length: turns }, (_, t) => `turn ${t + 1}`)];
  const rows = series.map((s) => [s.name, ...head.slice(1).map((_, t) => {
    const p = s.points[t];
    return p ? el("span", {}, score(p), el("small", {}, `agents ${p.agents.map((a) => (100 * a).toFixed(0)).join(" · ")}`),
      el("small", {}, `agree ${percent(p.agreement, 0)}, no answer ${percent(p.invalid, 0)}`)) : "";
  })]);
  return el("details", {}, el("summary", {}, "The numbers"), table("Percent; below, each agent's accuracy, agreement and messages without an answer.", head, rows, "stack"));
}

function bars() {
  const arms = data.arms.filter((a) => data.curves.some((s) => s.arm === a.name && s.stage === "before"));
  if (!arms.length) return null;
  const charts = el("div", { class: "grid two" });
  const draw = (arm) => show(charts, decodings.map((d) => {
    const groups = of(data.curves, d, arm).map((s) => ({ ...s, name: STAGE[s.stage] }));
    return groups.length ? el("div", { class: "card" }, el("h3", {}, d === "sampled" ? "Sampled" : "Greedy"), barChart(groups, `before and after, ${d}`)) : null;
  }).filter(Boolean));
  draw(arms[0].name);
  return section("stages", "Before and after", "One bar per turn, first turn lightest; the line on a bar is its interval.",
    arms.length > 1 ? el("div", { class: "bar" }, pick("Arm", arms.map((a) => [a.name, a.label]), draw)) : null, charts);
}

// --- Flips ---

function changes() {
  if (!data.flips.length) return null;
  const charts = el("div", { class: "grid two" });
  let decoding = decodings[0], arm = data.flips[0].arm;
  const draw = () => show(charts, of(data.flips, decoding, arm).map((s) => el("div", { class: "card" },
    el("h3", {}, capital(STAGE[s.stage])),
    el("div", { class: "flips" }, s.matrices.map((matrix, t) => el("figure", {},
      el("figcaption", {}, `turn ${t + 1} to ${t + 2}`), flipChart(matrix, `${STAGE[s.stage]}, turn ${t + 1} to ${t + 2}`)))))));
  draw();
  const names = data.arms.filter((a) => data.flips.some((s) => s.arm === a.name));
  return section("flips", "Who changed their answer", "Share of all messages; rows: the turn before, columns: the turn after. Blue: became right. Orange: became wrong.",
    el("div", { class: "bar" },
      names.length > 1 ? pick("Arm", names.map((a) => [a.name, a.label]), (a) => { arm = a; draw(); }) : null,
      decodings.length > 1 ? choice("Decoding", BOTH, decoding, (d) => { decoding = d; draw(); }) : null),
    charts);
}

// --- Tables ---

function armTable() {
  if (!several) return null;
  const head = ["", "before", "turn 1", "last turn", "greedy", "method's lead", "messages / question", "tokens / question", "training messages", "training tokens"];
  const row = (a) => [
    el("span", {}, el("span", { class: `role ${a.role}` }, a.role), el("br"), a.label, a.description ? el("small", {}, a.description) : null),
    score(a.before), score(a.first), a.last ? el("b", {}, score(a.last)) : "", score(a.greedy),
    a.lead ? figure(points(a.lead.mean), a.lead.half) : "",
    a.answers ? a.answers.toFixed(1) : "", a.tokens ? a.tokens.toFixed(0) : "", a.train_answers ? whole(a.train_answers) : "", a.train_tokens ? whole(a.train_tokens) : "",
  ];
  return section("arms", "Arms and controls", `${capital(data.metric)} in percent, sampled unless said otherwise; ${data.interval}. Training cost is per seed.`,
    table("Method's lead: points by which the method's last turn is above this row's, paired by seed.", head, data.arms.map(row), "stack"));
}

function incentives() {
  const shown = data.incentives;
  if (!shown) return null;
  const head = ["", ...shown.columns.map((c) => (several ? `${c.label}, ${c.stage}` : STAGE[c.stage]))];
  const cell = (c) => (c ? el("span", {}, score(c), el("small", {}, `of ${whole(c.count)}`)) : "–");
  const rows = shown.cases.map(([weight, words], i) => [el("span", {}, words, el("small", {}, `bonus ${weight}`)), ...shown.columns.map((c) => cell(c.cells[i]))]);
  return section("incentives", "Who moves whom", "From one turn to the next, in percent. “Peers” are the strict majority of the other agents; a tie is neither right nor wrong. α and β are the bonus weights of the paper's Tables 1 and 2.",
    table("Share of the messages with this past.", head, rows, "stack"));
}

// --- Training ---

function training() {
  if (!data.training.length) return null;
  const body = el("div", {});
  function draw(name) {
    const t = data.training.find((one) => one.arm === name);
    const [first, ...rest] = t.panels;
    const panel = (p, size) => {
      const lines = p.lines.map((l, i) => ({ ...l, colour: l.label.startsWith("turn") ? `t${Math.min(i, 5)}` : `c${i % 6}` }));
      return el("div", { class: "card" }, el("h3", {}, p.title),
        lines.length > 1 ? el("div", { class: "legend" }, lines.map((l) => el("span", {}, swatch(l.colour), l.label))) : null,
        stepChart(lines, t.seeds, `${p.title}, by training step`, size));
    };
    show(body, t.warnings.map((text) => el("p", { class: "note" }, `⚠ ${text}`)),
      first ? panel(first, [wide(), 300]) : null,
      el("div", { class: "grid" }, rest.map((p) => panel(p, [340, 190]))));
  }
  draw(data.training[0].arm);
  return section("training", "Training", data.training[0].seeds > 1 ? "By step: mean over seeds, bands from the lowest to the highest seed." : "By step, one seed.",
    data.training.length > 1 ? el("div", { class: "bar" }, pick("Arm", data.training.map((t) => [t.arm, t.label]), draw)) : null, body);
}

function settings() {
  const block = (title, value) => (value && Object.keys(value).length
    ? el("details", {}, el("summary", {}, title), el("pre", { tabindex: "0" }, JSON.stringify(value, null, 2))) : null);
  const own = Object.fromEntries(data.arms.filter((a) => Object.keys(a.settings).length).map((a) => [a.label, a.settings]));
  return section("settings", "Settings and versions", null,
    block("Settings", data.settings.settings), block("What sets the arms apart", own), block("Versions", data.settings.versions));
}
