// The trace browser. Everything that a model or a data set wrote goes in by textContent, never as markup.
"use strict";
(async () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filters");
  const count = document.querySelector(".count");
  const list = document.querySelector(".list");
  const trace = document.querySelector(".trace");
  const ROW = 66; // pixels of a row of the list, as in page.css

  const element = (tag, name, text) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
  };
  if (!("DecompressionStream" in window)) {
    count.textContent = "This browser is too old to unpack the traces: any of 2023 or later can.";
    return;
  }
  const { questions, arms } = await unpack(data.texts);

  // ------------------------------------------------------------------------------------------------- model text

  const STRANGE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;
  const isStrange = (c) => c !== "\n" && c !== "\t" && STRANGE.test(c);
  const spelled = (c) => `U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  const plain = (text) => Array.from(text, (c) => (isStrange(c) ? `⟨${spelled(c)}⟩` : c)).join("");

  // Text into a node: control and direction marks spelled out, many empty lines as their count.
  const write = (node, text) => {
    for (const part of text.split(/((?:\n[ \t]*){6,})/)) {
      if (/^\n[\s]*$/.test(part) && part.split("\n").length > 6) {
        node.append("\n", element("span", "ctl", `${part.split("\n").length - 2} empty lines`), "\n");
        continue;
      }
      let run = "";
      for (const c of part) {
        if (!isStrange(c)) { run += c; continue; }
        node.append(run, element("span", "ctl", spelled(c)));
        run = "";
      }
      node.append(run);
    }
  };

  // A completion: cut at the edges of tags, equations and tokens, each piece with what holds of it.
  const said = (completion) => {
    const characters = Array.from(completion.text); // positions count code points
    const edges = new Set([0, characters.length]);
    const tags = [];
    let at = 0;
    for (const part of completion.text.split(/(<\/?(?:reasoning|answer)>)/)) {
      const size = Array.from(part).length;
      if (/^<\/?(?:reasoning|answer)>$/.test(part)) { tags.push([at, at + size]); edges.add(at).add(at + size); }
      at += size;
    }
    for (const [start, end] of completion.equations) edges.add(start).add(end);
    const tokens = [];
    let start = 0;
    for (const [i, length] of (completion.lengths ?? []).entries()) {
      tokens.push([start, start + length, completion.levels[i] * data.nats, completion.settled?.[i]]);
      edges.add(start += length);
    }
    const box = element("pre", "said");
    box.tabIndex = 0;
    const sorted = [...edges].sort((a, b) => a - b);
    let tag = 0, equation = 0, token = 0;
    for (let i = 0; i + 1 < sorted.length; i++) {
      const [from, to] = [sorted[i], sorted[i + 1]];
      while (tag < tags.length && tags[tag][1] <= from) tag++;
      while (equation < completion.equations.length && completion.equations[equation][1] <= from) equation++;
      while (token < tokens.length && tokens[token][1] <= from) token++;
      const piece = element("span");
      if (tags[tag]?.[0] <= from) piece.classList.add("tag");
      const inside = completion.equations[equation];
      if (inside && inside[0] <= from) piece.classList.add("eq", inside[2] ? "holds" : "fails", ...(to < inside[1] ? ["cont"] : []));
      const thought = tokens[token];
      if (thought && thought[0] <= from) {
        piece.classList.add("tok");
        piece.style.setProperty("--h", Math.min(1, thought[2] / 2).toFixed(2));
        piece.dataset.tip = `entropy ${thought[2].toFixed(2)} nats${thought[3] === undefined ? "" : `\nsettled at layer ${thought[3]}`}`;
      }
      write(piece, characters.slice(from, to).join(""));
      box.append(piece);
    }
    if (completion.more) box.append(element("span", "ctl", `… ${completion.more.toLocaleString("en")} more characters`));
    return box;
  };

  // ---------------------------------------------------------------------------------------------------- filters

  const fill = (select, options) => { for (const [value, text] of options) select.append(new Option(text, value)); };
  const last = data.arms.at(-1);
  const fields = form.elements;
  for (const name of ["from", "to", "in"]) fill(fields[name], data.arms.map((arm) => [arm, arm]));
  fill(fields.operation, Object.entries(data.operations));
  fill(fields.steps, [...new Set(questions.map((q) => q.steps))].sort((a, b) => a - b).map((n) => [String(n), String(n)]));
  const found = new Set(data.arms.flatMap((arm) => arms[arm].flatMap((completion) => completion.marks)));
  const detectors = [...found].filter((mark) => !(mark in data.marks)).sort();
  fill(fields.mark, [
    ...Object.entries(data.marks).filter(([mark]) => found.has(mark)),
    ...detectors.map((mark) => [mark, `detector: ${mark.replaceAll("_", " ")}`]),
  ]);
  const names = ["find", "from", "to", "outcome", "operation", "steps", "mark", "in"];
  const defaults = { find: "", from: data.starts[last] ?? data.arms[0], to: last, outcome: "", operation: "", steps: "", mark: "", in: "" };
  const outcomes = {
    gained: (a, b) => !a && b, lost: (a, b) => a && !b, flipped: (a, b) => a !== b, wrong: (a, b) => !a && !b, right: (a, b) => a && b,
  };
  let haystacks = null; // lower-case texts, made at the first search
  const haystack = (i) => {
    haystacks ??= questions.map((q, j) => [q.id, q.text, q.gold, ...data.arms.map((arm) => arms[arm][j].text)].join("\n").toLowerCase());
    return haystacks[i];
  };
  const matches = (i, wish) => {
    const q = questions[i];
    if (wish.steps && q.steps !== Number(wish.steps)) return false;
    if (wish.operation && !q.operations.includes(wish.operation)) return false;
    if (wish.outcome && !outcomes[wish.outcome](Boolean(arms[wish.from][i].ok), Boolean(arms[wish.to][i].ok))) return false;
    if (wish.mark && !(wish.in ? [wish.in] : data.arms).some((arm) => arms[arm][i].marks.includes(wish.mark))) return false;
    return !wish.find || wish.find.toLowerCase().split(/\s+/).every((word) => haystack(i).includes(word));
  };

  // -------------------------------------------------------------------------------------------- list and question

  let shown = []; // indices of the questions that match
  let chosen = 0; // index of the question on the right
  const byId = new Map(questions.map((q, i) => [q.id, i]));

  const drawList = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const until = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
    const floor = element("div");
    floor.setAttribute("role", "presentation");
    floor.style.height = `${shown.length * ROW}px`;
    const rows = shown.slice(first, until).map((i, k) => {
      const q = questions[i];
      const row = element("div", "item");
      row.id = `row-${i}`;
      row.dataset.index = i;
      row.style.top = `${(first + k) * ROW}px`;
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", String(i === chosen));
      row.setAttribute("aria-setsize", shown.length);
      row.setAttribute("aria-posinset", first + k + 1);
      const top = element("div", "top");
      const signs = element("span", "marks");
      signs.title = data.arms.map((arm) => `${arm} ${arms[arm][i].ok ? "right" : "wrong"}`).join(", ");
      for (const arm of data.arms) signs.append(arms[arm][i].ok ? element("span", "right", "✓") : element("span", "wrong", "✗"));
      top.append(element("span", "", plain(q.id)), signs);
      row.append(top, element("div", "text", plain(q.text)));
      return row;
    });
    list.replaceChildren(floor, ...rows);
    if (rows.some((row) => row.id === `row-${chosen}`)) list.setAttribute("aria-activedescendant", `row-${chosen}`);
    else list.removeAttribute("aria-activedescendant");
  };

  const card = (arm, place) => {
    const completion = arms[arm][chosen];
    const box = element("section", "card");
    box.style.setProperty("--c", `var(--arm-${place})`);
    const head = element("div", "head");
    const answer = completion.answer === null ? "no answer" : plain(completion.answer);
    head.append(
      element("b", "", arm),
      element("span", `outcome ${completion.ok ? "right" : "wrong"}`, `${completion.ok ? "✓" : "✗"} ${answer}`),
      element("span", "tokens", `${completion.tokens} tokens`),
    );
    const badges = element("div");
    for (const mark of completion.marks) badges.append(element("span", "badge", data.marks[mark] ?? mark.replaceAll("_", " ")));
    box.append(head, ...(completion.marks.length ? [badges] : []), said(completion));
    if (completion.samples.length) {
      const drawn = completion.samples.map(([value, times, ok]) => `${ok ? "✓ " : ""}${value === null ? "none" : plain(value)}${times > 1 ? ` ×${times}` : ""}`);
      box.append(element("div", "samples", `sampled: ${drawn.join(" · ")}`));
    }
    return box;
  };

  const drawTrace = () => {
    const q = questions[chosen];
    const header = element("header");
    const uses = Object.entries(data.operations).filter(([sign]) => q.operations.includes(sign)).map(([, name]) => name);
    const kind = [`${q.steps} ${q.steps === 1 ? "step" : "steps"}`, ...uses].join(" · ");
    header.append(element("b", "", plain(q.id)), element("span", "", `answer ${plain(q.gold)}`), element("span", "", kind));
    const steer = element("span", "steer");
    for (const [text, label, go] of [["←", "Previous question", () => move(-1)], ["→", "Next question", () => move(1)], ["Copy link", "Copy a link to this question", copy]]) {
      const button = element("button", "", text);
      button.type = "button";
      button.setAttribute("aria-label", label);
      button.addEventListener("click", go);
      steer.append(button);
    }
    header.append(steer);
    const question = element("p", "question");
    write(question, q.text);
    const solution = element("details");
    const work = element("pre", "said");
    write(work, q.solution);
    solution.append(element("summary", "", "The question's own solution"), work);
    const cards = element("div", "cards");
    cards.append(...data.arms.map(card));
    trace.replaceChildren(header, question, solution, cards);
    trace.scrollTop = 0;
  };

  // ------------------------------------------------------------------------------------------- state and the hash

  const wish = () => Object.fromEntries(names.map((name) => [name, fields[name].value.trim()]));
  const address = () => {
    const state = Object.entries(wish()).filter(([name, value]) => value !== defaults[name]);
    return `#${new URLSearchParams([["q", questions[chosen].id], ...state])}`;
  };
  const remember = () => history.replaceState(null, "", address());
  const apply = () => {
    const now = wish();
    shown = questions.flatMap((_, i) => (matches(i, now) ? [i] : []));
    const share = `${shown.length.toLocaleString("en")} of ${questions.length.toLocaleString("en")} questions`;
    count.textContent = shown.length ? share : `${share}: nothing matches all of these filters.`;
  };
  const reveal = () => {
    const place = shown.indexOf(chosen);
    if (place >= 0 && (place * ROW < list.scrollTop || (place + 1) * ROW > list.scrollTop + list.clientHeight))
      list.scrollTop = place * ROW - (list.clientHeight - ROW) / 2;
  };
  const choose = (i) => { chosen = i; reveal(); drawList(); drawTrace(); remember(); };
  const move = (by) => {
    if (!shown.length) return;
    const place = shown.indexOf(chosen);
    choose(shown[place < 0 ? 0 : Math.min(shown.length - 1, Math.max(0, place + by))]);
  };
  const refilter = () => {
    apply();
    list.scrollTop = 0;
    if (shown.length && !shown.includes(chosen)) choose(shown[0]);
    else { reveal(); drawList(); remember(); }
  };
  async function copy(event) {
    const button = event.currentTarget;
    try { await navigator.clipboard.writeText(location.href); button.textContent = "Copied"; } catch { button.textContent = "Copy it from the address bar"; }
  }
  // True where the hash names a state of the browser and not a section of the page.
  const restore = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    if (!location.hash.includes("=")) return false;
    for (const name of names) {
      fields[name].value = asked.get(name) ?? defaults[name];
      if (fields[name].value !== (asked.get(name) ?? defaults[name])) fields[name].value = defaults[name]; // an arm or a mark that is no more
    }
    apply();
    const i = byId.get(asked.get("q"));
    if (asked.has("q") && i === undefined) count.textContent += ` There is no question ${plain(asked.get("q"))}.`;
    chosen = i ?? shown[0] ?? 0;
    return true;
  };

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { for (const name of names) fields[name].value = defaults[name]; refilter(); }));
  form.addEventListener("input", refilter);
  list.addEventListener("scroll", drawList);
  list.addEventListener("click", (event) => {
    const row = event.target.closest(".item");
    if (row) choose(Number(row.dataset.index));
  });
  list.addEventListener("keydown", (event) => {
    if (event.key === "Enter") return trace.focus();
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8, Home: -Infinity, End: Infinity }[event.key];
    if (!step) return;
    event.preventDefault();
    move(step);
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "Escape" && typing) return event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); fields.find.focus(); }
    else if (event.key === "j" || event.key === "k") move(event.key === "j" ? 1 : -1);
  });
  addEventListener("resize", drawList);

  const open = (isFirst) => {
    const isLink = restore();
    if (!isLink && !isFirst) return;
    reveal();
    drawList();
    drawTrace();
    if (isLink) document.getElementById("traces").scrollIntoView({ behavior: "instant" });
  };
  for (const name of names) fields[name].value = defaults[name];
  apply();
  chosen = shown[0] ?? 0;
  open(true);
  addEventListener("hashchange", () => open(false));
  document.documentElement.dataset.ready = "true";
})();
