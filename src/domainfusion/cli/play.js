"use strict";
(() => {
  const { token, experts } = JSON.parse(document.getElementById("data").textContent);
  const [ask, question, send, state, answers, integration, ledger, review, domains, kept] = [
    "ask", "question", "send", "state", "answers", "integration", "ledger", "review", "domains", "kept",
  ].map((id) => document.getElementById(id));
  let asked = "";

  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const post = async (path, content) => {
    const reply = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Token": token },
      body: JSON.stringify(content),
    });
    const found = await reply.json();
    if (!reply.ok) throw new Error(found.error);
    return found;
  };
  const row = ({ name, text, note }) => {
    const said = make("dd", "");
    const words = make("span", text || "empty", text ? "words" : "quiet");
    words.dir = "auto";
    said.append(words);
    if (note) said.append(" ", make("small", note));
    const line = make("div", "", "said");
    line.append(make("dt", name), said);
    return line;
  };

  for (const name of experts) {
    const label = make("label", ` ${name}`, "choice");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.value = name;
    label.prepend(box);
    domains.append(label);
  }
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!send.disabled) ask.requestSubmit();
  });
  ask.addEventListener("submit", async (event) => {
    event.preventDefault();
    send.disabled = true;
    state.textContent = "Asking …";
    kept.textContent = "";
    try {
      const found = await post("/ask", { question: question.value });
      asked = question.value;
      answers.replaceChildren(...found.answers.map(row));
      ledger.replaceChildren(...found.ledger.map((line) => make("li", line)));
      integration.hidden = found.ledger.length === 0;
      review.hidden = experts.length === 0;
      state.textContent = asked;
    } catch (error) {
      state.textContent = error.message;
    }
    send.disabled = false;
  });
  review.addEventListener("submit", async (event) => {
    event.preventDefault();
    const chosen = [...domains.querySelectorAll("input:checked")].map((box) => box.value);
    try {
      kept.textContent = (await post("/review", { question: asked, domains: chosen })).done;
    } catch (error) {
      kept.textContent = error.message;
    }
  });
})();
