"use strict";
(() => {
  const form = document.getElementById("finder");
  if (!form) return;
  const [search, grade, slice] = ["search", "grade", "slice"].map((id) => document.getElementById(id));
  const status = document.getElementById("found");
  const folds = [...document.querySelectorAll("#answers details.fold")].map((fold) => [fold, fold.open]);
  const groups = [...document.querySelectorAll("#answers .group")];
  const articles = [...document.querySelectorAll("#answers article")].map((article) => [article, article.textContent.toLowerCase()]);

  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const narrowed = words.length > 0 || grade.value !== "" || slice.value !== "";
    let number = 0;
    for (const [article, text] of articles) {
      const fits =
        (grade.value === "" || article.dataset.grade === grade.value) &&
        (slice.value === "" || article.dataset.slice === slice.value) &&
        words.every((word) => text.includes(word));
      article.hidden = !fits;
      if (fits) number += 1;
    }
    for (const group of groups) group.hidden = !group.querySelector("article:not([hidden])");
    for (const [fold, open] of folds) {
      fold.hidden = !fold.querySelector("article:not([hidden])");
      fold.open = narrowed || open;
    }
    status.textContent = narrowed ? `${number} of ${articles.length} questions` : "";
  };

  form.hidden = false;
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
})();
