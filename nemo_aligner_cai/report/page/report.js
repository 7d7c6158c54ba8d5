// SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
// SPDX-License-Identifier: Apache-2.0
// The chains of a report: a windowed list with search and filters, and one chain in detail.
// All text reaches the page as textContent. Nothing is loaded: the data is in the page, compressed.
"use strict";
(() => {
  const ROW = 60; // height of a row of the list, in pixels; the style sheet has the same
  const SPARE = 8; // rows drawn above and below the visible ones
  const OPEN_BLOCKS = 8;
  const LONG = 6000; // characters of a text that are shown at first
  const MOST_CELLS = 4e6; // of the table that finds the difference of two texts
  const MOST_COMPARED = 40000; // characters of each

  const root = document.documentElement;
  const at = (id) => document.getElementById(id);
  const pane = at("explorer");
  if (!pane) return;
  const list = at("list"), sizer = at("sizer"), detail = at("detail"), status = at("status"), query = at("query");
  const selects = { kind: at("kind"), principle: at("principle"), tag: at("tag") };
  const reveal = at("reveal");

  let index; // the columns of all chains
  let visible = []; // the chains that match, as positions in the index
  let current = -1; // the open chain
  let searched = 0; // chains whose texts are in `texts`
  const texts = [];
  const blocks = new Map();

  function node(name, properties = {}, ...children) {
    const { data, aria, ...rest } = properties;
    const made = Object.assign(document.createElement(name), rest);
    Object.assign(made.dataset, data);
    for (const [key, value] of Object.entries(aria || {})) made.setAttribute(key === "role" ? key : `aria-${key}`, value);
    made.append(...children);
    return made;
  }

  async function unpack(id) {
    const packed = atob(at(id).textContent);
    const bytes = new Uint8Array(packed.length);
    for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  function block(number) {
    const opened = blocks.get(number) || unpack(`block-${number}`);
    blocks.delete(number);
    blocks.set(number, opened); // the last used is the last to be closed
    if (blocks.size > OPEN_BLOCKS) blocks.delete(blocks.keys().next().value);
    return opened;
  }

  const partsOf = async (chain) => (await block(Math.floor(chain / index.block)))[chain % index.block].parts;

  // ---- filters, which live in the address

  const address = () => new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");

  function keep(key, value, { replace = true } = {}) {
    const state = address();
    if (value) state.set(key, value);
    else state.delete(key);
    const hash = `#${state}`;
    if (replace) history.replaceState(null, "", hash);
    else history.pushState(null, "", hash);
  }

  const words = () => query.value.toLowerCase().split(/\s+/).filter(Boolean);

  function filter() {
    const chosen = Object.fromEntries(Object.entries(selects).map(([key, select]) => [key, select.value]));
    const kind = index.kinds.findIndex((one) => one.id === chosen.kind);
    const principle = index.principles.indexOf(chosen.principle), tag = index.tags.indexOf(chosen.tag);
    const wanted = words();
    visible = [];
    for (let i = 0; i < index.ids.length; i++) {
      if (chosen.kind && index.kind[i] !== kind) continue;
      if (chosen.principle && !index.principle[i].includes(principle)) continue;
      if (chosen.tag && !index.tag[i].includes(tag)) continue;
      if (wanted.length && !wanted.every((word) => (texts[i] || index.ids[i]).includes(word))) continue;
      visible.push(i);
    }
    sizer.style.height = `${visible.length * ROW}px`;
    paint();
    tell();
  }

  function tell() {
    const all = index.ids.length, count = visible.length.toLocaleString("en");
    const found = visible.length === all ? `${count} chains` : `${count} of ${all.toLocaleString("en")} chains`;
    const reading = searched < all && words().length;
    status.textContent = reading ? `${found}; reading texts, ${Math.floor((100 * searched) / all)} %` : found;
  }

  // ---- the list

  function row(position) {
    const chain = visible[position];
    const title = index.titles[chain] || index.ids[chain];
    const about = [index.kinds[index.kind[chain]].label, ...index.principle[chain].map((n) => index.principles[n])];
    const made = node(
      "div",
      {
        className: "row",
        id: `row-${position}`,
        data: { position },
        aria: { role: "option", selected: chain === current, setsize: visible.length, posinset: position + 1 },
      },
      node("span", { className: "row-title", dir: "auto", textContent: title }),
      node("span", { className: "row-about", textContent: about.join(" · ") }),
    );
    made.style.transform = `translateY(${position * ROW}px)`;
    return made;
  }

  function paint() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
    const last = Math.min(visible.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE);
    const rows = [];
    for (let position = first; position < last; position++) rows.push(row(position));
    if (!rows.length) {
      const text = "No chain matches.";
      rows.push(node("div", { className: "row none", textContent: text, aria: { role: "option", disabled: true } }));
    }
    sizer.replaceChildren(...rows);
    const position = visible.indexOf(current);
    if (position >= first && position < last) list.setAttribute("aria-activedescendant", `row-${position}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function scrollTo(position) {
    const top = position * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  }

  function move(position) {
    const chain = visible[Math.min(Math.max(position, 0), visible.length - 1)];
    if (chain === undefined) return;
    keep("chain", index.ids[chain]);
    open(chain);
  }

  const STEPS = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8, Home: -Infinity, End: Infinity };

  list.addEventListener("keydown", (event) => {
    if (!(event.key in STEPS) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const position = visible.indexOf(current);
    if (event.key === "Home") move(0);
    else if (event.key === "End") move(visible.length - 1);
    else move(position < 0 ? 0 : position + STEPS[event.key]);
  });

  list.addEventListener("click", (event) => {
    const clicked = event.target.closest("[data-position]");
    if (!clicked) return;
    const chain = visible[Number(clicked.dataset.position)];
    keep("chain", index.ids[chain], { replace: false });
    open(chain, { show: true });
  });

  list.addEventListener("scroll", () => requestAnimationFrame(paint), { passive: true });

  // ---- one chain

  async function open(chain, { show = false } = {}) {
    current = chain;
    const position = visible.indexOf(chain);
    if (position >= 0) scrollTo(position);
    paint();
    const parts = await partsOf(chain);
    if (current !== chain) return; // another one was opened meanwhile
    const id = index.ids[chain];
    const heading = node("h3", { textContent: index.kinds[index.kind[chain]].label, tabIndex: -1 });
    const link = node("a", { className: "permalink", href: `#${new URLSearchParams({ chain: id })}`, textContent: id });
    link.setAttribute("aria-label", `Link to chain ${id}`);
    const tags = index.tag[chain].map((n) => node("li", { textContent: index.tags[n] }));
    detail.replaceChildren(
      node("div", { className: "detail-head" }, heading, steps(position), link),
      node("ul", { className: "tags", aria: { label: "Results" } }, ...tags),
      ...parts.map((part, number) => shown(part, number, parts)),
    );
    detail.scrollTop = 0;
    root.dataset.chain = id;
    performance.mark("chain-open");
    // On a phone the list fills the screen.
    if (show && detail.getBoundingClientRect().top > innerHeight * 0.6) detail.scrollIntoView();
  }

  function steps(position) {
    const button = (label, text, to) =>
      node("button", {
        type: "button",
        textContent: text,
        disabled: position < 0 || to < 0 || to >= visible.length,
        onclick: () => move(to),
        aria: { label },
      });
    return node(
      "span",
      { className: "steps" },
      button("Previous chain", "←", position - 1),
      button("Next chain", "→", position + 1),
      node("button", { type: "button", className: "back", textContent: "List", onclick: () => pane.scrollIntoView() }),
    );
  }

  function shown(part, number, parts) {
    const badges = (part.badges || []).map((text) => node("span", { className: "badge", textContent: text }));
    const heading = node("h4", { id: `part-${number}` }, part.label, ...badges);
    const body = node("div", { className: "part-body" });
    const fill = () => body.replaceChildren(...content(part, parts));
    if (part.fold && !reveal.checked) body.append(fold(fill, body));
    else fill();
    const quiet = part.quiet ? " quiet" : "";
    return node("section", { className: `part part-${part.type}${quiet}`, aria: { labelledby: heading.id } }, heading, body);
  }

  function fold(fill, body) {
    return node("button", {
      type: "button",
      className: "unfold",
      textContent: "Show text that may be harmful",
      onclick: () => {
        fill();
        body.tabIndex = -1;
        body.focus();
      },
    });
  }

  function content(part, parts) {
    if (part.type === "table") return [table(part)];
    if (part.type === "diff") return [difference(parts[part.before].text, parts[part.after].text)];
    return [paragraph(part.text)];
  }

  function paragraph(text) {
    const made = node("p", { className: "text", dir: "auto" });
    if (text.length <= LONG) {
      made.append(...marked(text));
      return made;
    }
    const all = `Show all ${text.length.toLocaleString("en")} characters`;
    const more = node("button", { type: "button", textContent: all, onclick: () => (made.textContent = text) });
    made.append(...marked(text.slice(0, LONG)), "… ", more);
    return made;
  }

  /** The text with the searched words marked. */
  function marked(text) {
    const wanted = words();
    if (!wanted.length) return [text];
    const escaped = wanted.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    const pieces = text.split(new RegExp(`(${escaped.join("|")})`, "gi"));
    return pieces.map((piece, i) => (i % 2 ? node("mark", { textContent: piece }) : piece));
  }

  function table(part) {
    const cells = (name, row) => row.map((text) => node(name, { textContent: text }));
    const head = node("tr", {}, ...cells("th", part.head));
    for (const cell of head.children) cell.scope = "col";
    const rows = part.rows.map((row) => node("tr", {}, ...cells("td", row)));
    const made = node("table", {}, node("thead", {}, head), node("tbody", {}, ...rows));
    return node("div", { className: "scroll", tabIndex: 0, aria: { role: "region", label: part.label } }, made);
  }

  /** The second text, with what it adds and what it drops, by the longest common sequence of words. */
  function difference(before, after) {
    // A word or a punctuation mark, with the white space after it.
    const tokens = (text) => text.match(/[\p{L}\p{N}_]+\s*|[^\p{L}\p{N}_\s]\s*|\s+/gu) || [];
    const long = () => node("p", { textContent: "Too long to compare word by word." });
    if (Math.max(before.length, after.length) > MOST_COMPARED) return long();
    const a = tokens(before), b = tokens(after);
    let start = 0, end = 0;
    while (start < Math.min(a.length, b.length) && a[start] === b[start]) start++;
    const rest = Math.min(a.length, b.length) - start;
    while (end < rest && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
    const n = a.length - start - end, m = b.length - start - end;
    if ((n + 1) * (m + 1) > MOST_CELLS) return long();
    const made = node("p", { className: "text", dir: "auto" });
    const add = (name, words) => words.length && made.append(node(name, { textContent: words.join("") }));
    add("span", a.slice(0, start));
    for (const change of changes(edits(a.slice(start, start + n), b.slice(start, start + m)))) {
      for (const name of ["span", "del", "ins"]) add(name, change[name]);
    }
    add("span", a.slice(a.length - end));
    return made;
  }

  function edits(a, b) {
    const n = a.length, m = b.length, width = m + 1;
    const common = new Uint16Array((n + 1) * width);
    for (let i = n - 1; i >= 0; i--) {
      for (let j = m - 1; j >= 0; j--) {
        const here = i * width + j;
        common[here] = a[i] === b[j] ? common[here + width + 1] + 1 : Math.max(common[here + width], common[here + 1]);
      }
    }
    const found = [];
    const push = (name, word) => {
      if (found.length && found[found.length - 1][0] === name) found[found.length - 1][1].push(word);
      else found.push([name, [word]]);
    };
    let i = 0, j = 0;
    while (i < n || j < m) {
      if (i < n && j < m && a[i] === b[j]) push("span", (j++, a[i++]));
      else if (j === m || (i < n && common[(i + 1) * width + j] >= common[i * width + j + 1])) push("del", a[i++]);
      else push("ins", b[j++]);
    }
    return found;
  }

  /** Runs of edits, each after the words that stay; a lone word or mark between two edits is part of both. */
  function changes(found) {
    const runs = [{ span: [], del: [], ins: [] }];
    found.forEach(([name, words], i) => {
      const last = runs[runs.length - 1];
      if (name !== "span") last[name].push(...words);
      else if (i && i < found.length - 1 && words.length === 1) {
        last.del.push(...words);
        last.ins.push(...words);
      } else runs.push({ span: words, del: [], ins: [] });
    });
    return runs;
  }

  // ---- search: all texts are read while the page is idle

  const idle = () => new Promise((done) => (window.requestIdleCallback || setTimeout)(done, { timeout: 250 }));

  const searchable = (part) => (part.type === "text" ? part.text : part.type === "table" ? part.rows.join("\n") : "");

  async function readAll() {
    const count = Math.ceil(index.ids.length / index.block);
    for (let number = 0; number < count; number++) {
      await idle();
      const chains = await (blocks.get(number) || unpack(`block-${number}`));
      for (const { parts } of chains) {
        texts[searched] = [index.ids[searched], ...parts.map(searchable)].join("\n").toLowerCase();
        searched++;
      }
      if (words().length && number % 10 === 9) filter();
    }
    if (words().length) filter();
    root.dataset.search = "ready";
    performance.mark("search-ready");
  }

  // ---- the start

  function options(select, entries) {
    select.append(...entries.map(([value, label]) => node("option", { value, textContent: label })));
    select.disabled = !entries.length;
  }

  async function followAddress() {
    const state = address();
    for (const [key, select] of Object.entries(selects)) select.value = state.get(key) || "";
    query.value = state.get("q") || "";
    filter();
    const id = state.get("chain");
    if (!id) return;
    const chain = index.ids.indexOf(id);
    if (chain >= 0) {
      await open(chain);
      pane.scrollIntoView();
    } else {
      detail.replaceChildren(node("p", { className: "hint", textContent: `This file has no chain ${id}.` }));
    }
  }

  async function begin() {
    index = await unpack("index");
    const used = new Set(index.kind);
    const kinds = index.kinds.filter((_, n) => used.has(n)).map((one) => [one.id, one.label]);
    options(selects.kind, kinds);
    options(selects.principle, index.principles.map((name) => [name, name]));
    options(selects.tag, index.tags.map((name) => [name, name]));
    for (const [key, select] of Object.entries(selects)) {
      select.addEventListener("change", () => (keep(key, select.value), (list.scrollTop = 0), filter()));
    }
    let waiting;
    query.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => (keep("q", query.value.trim()), (list.scrollTop = 0), filter()), 80);
    });
    reveal.addEventListener("change", () => current >= 0 && open(current));
    addEventListener("hashchange", () => location.hash.includes("=") && followAddress());
    addEventListener("popstate", () => location.hash.includes("=") && followAddress());
    addEventListener("resize", paint);
    pane.hidden = false;
    await followAddress();
    root.dataset.list = "ready";
    performance.mark("list-ready");
    await readAll();
  }

  begin().catch((error) => {
    at("chains-problem").textContent = `The chains cannot be shown: ${error.message}. A current browser is needed.`;
  });
})();
