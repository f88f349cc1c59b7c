/* Draws the plots and lets the buttons of a study's legend highlight variants in all of them.
   Without this script the page shows the same plots as images. */
(() => {
  "use strict";
  const views = new Map(); // study -> views of its plots
  const picked = new Map(); // study -> highlighted labels

  function draw(figure) {
    if (figure.dataset.drawn) return;
    figure.dataset.drawn = "yes";
    const study = figure.dataset.study;
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const stage = figure.querySelector(".live");
    stage.hidden = false;
    vegaEmbed(stage, spec, { actions: false, renderer: "svg", tooltip: { theme: "custom" } })
      .then(({ view }) => {
        figure.classList.add("is-live");
        views.set(study, [...(views.get(study) ?? []), view]);
        highlight(view, study);
      })
      .catch((error) => {
        stage.hidden = true;
        console.error(error);
      });
  }

  function highlight(view, study) {
    view.signal("picked", [...(picked.get(study) ?? [])]).runAsync();
  }

  function toggle(button) {
    const study = button.closest(".legend").dataset.study;
    const labels = picked.get(study) ?? new Set();
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    if (on) labels.add(button.dataset.label);
    else labels.delete(button.dataset.label);
    picked.set(study, labels);
    for (const other of document.querySelectorAll(".legend button")) {
      if (other.dataset.label === button.dataset.label &&
          other.closest(".legend").dataset.study === study) {
        other.setAttribute("aria-pressed", String(on));
      }
    }
    for (const view of views.get(study) ?? []) highlight(view, study);
  }

  for (const legend of document.querySelectorAll(".legend")) {
    legend.hidden = false;
    legend.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) toggle(button);
    });
  }
  for (const figure of document.querySelectorAll("figure.plot[data-study]")) {
    const folded = figure.closest("details:not([open])");
    // A plot in a closed element has no width yet.
    if (folded) folded.addEventListener("toggle", () => draw(figure), { once: true });
    else draw(figure);
  }

  const opened = [];
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details:not([open])")) {
      details.open = true;
      opened.push(details);
    }
  });
  addEventListener("afterprint", () => {
    for (const details of opened.splice(0)) details.open = false;
  });
})();
