// The debates: a list one can search and filter, and one debate to step through turn by turn.

const MARKS = { right: ["✓", "right", "right"], wrong: ["✕", "wrong", "wrong"], none: ["∅", "no answer", "no-answer"], unscored: ["?", "unscored", "unscored"] };
const last = (list) => list[list.length - 1];

const FILTERS = {
  all: ["all questions", () => true],
  gained: ["right only after training", (q) => ends(q, "before") < 1 && ends(q, "after") === 1],
  lost: ["right only before training", (q) => ends(q, "before") === 1 && ends(q, "after") < 1],
  repaired: ["repaired by the debate", (q) => stagesOf(q).some((s) => s.votes[0] < 1 && last(s.votes) === 1)],
  spoiled: ["spoiled by the debate", (q) => stagesOf(q).some((s) => s.votes[0] === 1 && last(s.votes) < 1)],
  person: ["with interventions of a person", (q) => stagesOf(q).some(touched)],
  unscored: ["with unscored messages", (q) => stagesOf(q).some((s) => s.turns.flat().some((m) => m.mark === "unscored"))],
};
const touched = (s) => s.turns.flat().some((m) => m.person);
const stagesOf = (q) => Object.values(q.stages);
const ends = (q, stage) => (q.stages[stage] ? last(q.stages[stage].votes) : NaN);
const voteSign = (vote) => (vote === 1 ? "✓" : vote === 0 ? "✕" : "½");
const haystack = (q) => [q.id, q.prompt, q.key, ...q.private.map((told) => told.text), ...stagesOf(q).flatMap((s) => s.turns.flat().map((m) => m.text))].join("\n").toLowerCase();

// The text with every place where the searched words stand marked.
function marked(text, words) {
  if (!words) return [text];
  const parts = [], low = text.toLowerCase();
  let from = 0;
  if (low.length !== text.length) return [text]; // lower case moved the places
  for (let at = low.indexOf(words); at >= 0 && parts.length < 400; at = low.indexOf(words, from)) {
    parts.push(text.slice(from, at), el("mark", {}, text.slice(at, at + words.length)));
    from = at + words.length;
  }
  return [...parts, text.slice(from)];
}

function debates() {
  const sets = data.debates.filter((set) => set.questions.length);
  if (!sets.length) return null;
  const state = { set: sets[0], words: "", filter: "all", found: [], at: 0, turn: 0 };
  const list = el("ol", {}), detail = el("div", { class: "card", id: "debate" });
  const count = el("p", { class: "hint", role: "status" });
  const texts = new Map();
  const textOf = (q) => texts.get(q) || texts.set(q, haystack(q)).get(q);

  function search() {
    state.found = state.set.questions.filter((q) => FILTERS[state.filter][1](q) && textOf(q).includes(state.words));
    show(count, `${state.found.length} of ${state.set.questions.length} questions` +
      (state.set.total > state.set.questions.length ? ` (the first ${state.set.questions.length} of the ${state.set.total} asked are in this page)` : ""));
    show(list, state.found.map((q, i) => el("li", {}, el("button", { type: "button", onclick: () => open(i) },
      el("span", { class: "asked" }, marked(q.prompt, state.words)),
      el("span", { class: "outcome" }, Object.entries(q.stages).map(([stage, s]) => el("span", {}, `${stage} ${s.votes.map(voteSign).join(" ")}${touched(s) ? " · a person intervened" : ""}`)))))));
    open(0);
  }

  function open(i, turn = 0) {
    state.at = Math.min(Math.max(0, i), Math.max(0, state.found.length - 1));
    state.turn = turn;
    [...list.children].forEach((item, k) => item.firstChild.setAttribute("aria-current", String(k === state.at)));
    draw();
  }

  function step(by) {
    state.turn = Math.min(Math.max(0, state.turn + by), length() - 1);
    draw();
  }

  const question = () => state.found[state.at];
  const length = () => Math.max(...stagesOf(question()).map((s) => s.turns.length));

  function draw() {
    if (!question()) return show(detail, el("p", { class: "hint" }, "No question fits. Change the search or the filter."));
    const q = question();
    const button = (text, label, go, off) => el("button", { type: "button", "aria-label": label, disabled: off, onclick: () => { go(); focusOn(label); } }, text);
    show(detail,
      el("p", { class: "asked-now" }, marked(q.prompt, state.words)),
      q.private.length ? el("dl", { class: "private" }, q.private.flatMap((told) => [
        el("dt", {}, `only ${told.agent} was told`), el("dd", {}, marked(told.text, state.words))])) : [],
      el("p", { class: "hint" }, el("span", { class: "mono" }, q.id), " · answer key: ", el("b", {}, q.key)),
      el("div", { class: "bar" },
        button("◀", "Turn back", () => step(-1), state.turn === 0),
        el("b", { role: "status", id: "turn" }, `Turn ${state.turn + 1} of ${length()}`),
        button("▶", "Turn on", () => step(1), state.turn === length() - 1),
        el("span", { class: "hint" }, "← → turns, ↑ ↓ questions")),
      el("div", { class: "stages" }, Object.entries(q.stages).map(([stage, s]) => stageView(stage, s))));
  }

  function focusOn(label) { // the button was drawn anew; keep the focus, also where it is now off
    const again = detail.querySelector(`[aria-label="${label}"]`);
    (again && !again.disabled ? again : detail.querySelector(".bar button:not(:disabled)"))?.focus();
  }

  function stageView(stage, s) {
    const now = s.turns[Math.min(state.turn, s.turns.length - 1)] || [];
    const before = state.turn > 0 ? s.turns[state.turn - 1] : null;
    const ended = state.turn >= s.turns.length ? el("p", { class: "hint" }, `ended after turn ${s.turns.length}`) : null;
    return el("div", { class: "stage" }, el("h3", {}, capital(STAGE[stage] || stage)), strip(s), ended,
      now.map((m, seat) => message(m, before && before[seat])));
  }

  // All verdicts of a debate at a glance: agents down, turns across.
  function strip(s) {
    const agents = s.turns.length ? s.turns[0].map((m) => m.agent) : [];
    const cell = (turn, t, seat) => {
      const [sign, words, kind] = MARKS[turn[seat].mark];
      return el("td", {}, el("button", { type: "button", class: `${kind} ${t === state.turn ? "now" : ""}`,
        "aria-label": `${turn[seat].agent}, turn ${t + 1}: ${words}`, onclick: () => { state.turn = t; draw(); } }, sign));
    };
    return el("table", { class: "strip" }, el("tbody", {},
      agents.map((agent, seat) => el("tr", {}, el("th", { scope: "row" }, agent), s.turns.map((turn, t) => cell(turn, t, seat)))),
      el("tr", {}, el("th", { scope: "row" }, "vote"), s.votes.map((vote) => el("td", { class: "vote" }, voteSign(vote))))));
  }

  function message(m, earlier) {
    const [sign, words, kind] = MARKS[m.mark];
    const score = m.score !== null && m.score > 0 && m.score < 1 ? `, score ${m.score.toFixed(2)}` : "";
    const was = earlier && earlier.answer !== m.answer ? ` (was ${earlier.answer ?? "none"})` : "";
    return el("article", { class: `says ${kind}` },
      el("header", {}, el("b", {}, m.agent), el("span", { class: "verdict" }, `${sign} ${words}${score}`)),
      el("p", {}, marked(m.text, state.words)),
      el("small", {}, m.answer === null ? "no answer could be read" : `answer ${m.answer}`, was,
        m.person ? el("b", { class: "person" }, ` · ${m.person} by a person`) : null));
  }

  function key(event) {
    if (event.target.matches("input, select")) return;
    const move = { ArrowLeft: () => step(-1), ArrowRight: () => step(1),
      ArrowUp: () => open(state.at - 1, state.turn), ArrowDown: () => open(state.at + 1, state.turn) }[event.key];
    if (!move || !question() || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const label = document.activeElement.getAttribute("aria-label");
    move();
    if (event.key === "ArrowUp" || event.key === "ArrowDown") list.children[state.at].firstChild.focus();
    else if (detail.contains(event.target) || !document.activeElement.isConnected || document.activeElement === document.body) focusOn(label);
  }

  const searched = el("input", { type: "search", id: "search", placeholder: "Search questions and messages", "aria-label": "Search questions and messages",
    oninput: (event) => { state.words = event.target.value.trim().toLowerCase(); search(); } });
  const view = section("debates", "Debates", "The same question before and after training, sampled; marks follow the answer key. Messages that a person changed say so.",
    el("div", { class: "explorer", onkeydown: key },
      el("div", {},
        el("div", { class: "search" },
          sets.length > 1 ? pick("Arm", sets.map((set, i) => [i, set.label]), (i) => { state.set = sets[i]; search(); }) : null,
          searched, pick("Filter", Object.entries(FILTERS).map(([name, [words]]) => [name, words]), (f) => { state.filter = f; search(); })),
        count, el("div", { class: "list" }, list)),
      detail));
  search();
  return view;
}

// --- The page ---

const parts = [sentences(), armTable(), byTurn(), bars(), changes(), incentives(), training(), debates(), settings()].filter(Boolean);
show(document.getElementById("top"), head());
show(document.getElementById("contents"), parts.map((part) => el("a", { href: `#${part.id}` }, part.querySelector("h2").textContent)));
show(document.getElementById("main"), parts);
document.documentElement.dataset.ready = "true";
