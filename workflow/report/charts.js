/* Draws the plots and lets the buttons of a legend highlight variants in all plots of its group.
   Without this script the page shows the same plots as images. */
(() => {
  "use strict";
  const views = new Map(); // group -> views of its plots
  const picked = new Map(); // group -> highlighted labels

  function draw(figure) {
    if (figure.dataset.drawn) return;
    figure.dataset.drawn = "yes";
    const group = figure.dataset.group;
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const stage = figure.querySelector(".live");
    stage.hidden = false;
    vegaEmbed(stage, spec, { actions: false, renderer: "svg", tooltip: { theme: "custom" } })
      .then(({ view }) => {
        figure.classList.add("is-live");
        views.set(group, [...(views.get(group) ?? []), view]);
        highlight(view, group);
      })
      .catch((error) => {
        stage.hidden = true;
        console.error(error);
      });
  }

  function highlight(view, group) {
    view.signal("picked", [...(picked.get(group) ?? [])]).runAsync();
  }

  // The button of a variant toggles it; the button of a study toggles all its variants.
  function toggle(button) {
    const group = button.closest(".legend").dataset.group;
    const labels = picked.get(group) ?? new Set();
    const on = button.getAttribute("aria-pressed") !== "true";
    const chosen = button.dataset.label
      ? [button]
      : button.closest(".part").querySelectorAll("button[data-label]");
    for (const { dataset } of chosen) {
      if (on) labels.add(dataset.label);
      else labels.delete(dataset.label);
    }
    picked.set(group, labels);
    for (const legend of document.querySelectorAll(".legend")) {
      if (legend.dataset.group === group) show(legend, labels);
    }
    for (const view of views.get(group) ?? []) highlight(view, group);
  }

  function show(legend, labels) {
    const press = (button, on) => button.setAttribute("aria-pressed", String(on));
    for (const button of legend.querySelectorAll("button[data-label]")) {
      press(button, labels.has(button.dataset.label));
    }
    for (const part of legend.querySelectorAll(".part")) {
      const own = [...part.querySelectorAll("button[data-label]")];
      press(part.querySelector(".all"), own.every(({ dataset }) => labels.has(dataset.label)));
    }
  }

  for (const legend of document.querySelectorAll(".legend")) {
    legend.hidden = false;
    legend.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) toggle(button);
    });
  }
  for (const figure of document.querySelectorAll("figure.plot[data-group]")) {
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
