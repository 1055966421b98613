"use strict";
(() => {
  const PAGE = 20;
  const MARKS = { right: "✓", wrong: "✗", kept: "✓" };

  const make = (tag, className, ...children) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children);
    return element;
  };
  const words = (text) => {
    const element = make("span", text ? "words" : "quiet", text || "empty");
    if (text) element.dir = "auto";
    return element;
  };
  const small = (text) => {
    const element = make("small", "", text);
    element.dir = "auto";
    return element;
  };
  const line = ([label, text, mark, notes]) => {
    const title = make("dt", "", label);
    if (mark) title.append(" ", make("span", `grade ${mark.replaceAll(" ", "-")}`, `${MARKS[mark] || "?"} ${mark}`));
    const said = make("dd", "", words(text));
    for (const note of notes) said.append(" ", small(note));
    return make("div", "said", title, said);
  };
  const article = (item) => {
    const element = make("article", "");
    element.dataset.state = item.state;
    if (item.before.length) {
      element.append(make("p", "turns", ...item.before.map(([role, text]) => make("small", "", `${role}: `, words(text)))));
    }
    element.append(make("p", "query", words(item.query), " ", make("small", "", item.about)));
    element.append(make("dl", "", ...item.lines.map(line)));
    if (item.more.length) {
      const count = `${item.more.length} other answer${item.more.length === 1 ? "" : "s"}`;
      element.append(make("details", "", make("summary", "", count), make("dl", "", ...item.more.map(line))));
    }
    return element;
  };
  const textOf = (item) => {
    const lines = [...item.before, ...item.lines, ...item.more];
    return [item.query, item.about, ...lines.flatMap(([label, text, , notes]) => [label, text, ...notes])].join(" ").toLowerCase();
  };

  for (const pager of document.querySelectorAll(".pager")) {
    const items = JSON.parse(pager.querySelector("script").textContent);
    const texts = items.map(textOf);
    const form = pager.querySelector("form");
    const { search, state, group, before, next } = form.elements;
    const output = pager.querySelector("output");
    const list = pager.querySelector(".list");
    let start = 0;

    const show = () => {
      const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = items.filter(
        (item, place) =>
          (state.value === "" || item.state === state.value) &&
          (group.value === "" || item.group === group.value) &&
          wanted.every((word) => texts[place].includes(word)),
      );
      const end = Math.min(start + PAGE, found.length);
      list.replaceChildren(...found.slice(start, end).map(article));
      output.textContent = found.length ? `${start + 1}–${end} of ${found.length}` : "none";
      before.disabled = start === 0;
      next.disabled = end === found.length;
    };
    const turn = (pages) => {
      start += pages * PAGE;
      show();
      pager.scrollIntoView();
    };
    form.addEventListener("input", () => {
      start = 0;
      show();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    before.addEventListener("click", () => turn(-1));
    next.addEventListener("click", () => turn(1));
    form.hidden = false;
    show();
  }

  // Browsers open a closed part when a link leads into it; not all of them do.
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    const part = target && target.closest("details.part");
    if (!part) return;
    part.open = true;
    part.scrollIntoView();
  };
  for (const link of document.querySelectorAll("a[href^='#']")) {
    link.addEventListener("click", () => {
      if (link.dataset.group !== undefined) {
        const group = document.getElementById("answers-group");
        group.value = link.dataset.group;
        group.dispatchEvent(new Event("input", { bubbles: true }));
      }
      setTimeout(reveal);
    });
  }
  addEventListener("hashchange", reveal);
  reveal();
})();
