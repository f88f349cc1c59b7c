/* Draws the plots, lets legends switch curves and buttons switch axes, and copies tables.
   Without this script the page shows the same plots as images. */
(() => {
  "use strict";
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const views = new Map(); // figure -> Vega view

  // --- plots -------------------------------------------------------------------------------------

  const isOn = (button) => button.getAttribute("aria-pressed") === "true";
  const press = (button, on) => {
    button.setAttribute("aria-pressed", String(on));
    button.dataset.used = "true";
  };
  // A curve is on where its plot draws it at first, until its button is used.
  const shown = ({ dataset: { group }, first }) =>
    all("button[data-label]")
      .filter((button) => button.closest(".legend").dataset.group === group)
      .filter((button) => (button.dataset.used ? isOn(button) : first.includes(button.dataset.label)))
      .map(({ dataset }) => dataset.label);

  async function draw(figure) {
    const stage = figure.querySelector(".live");
    const spec = JSON.parse(figure.querySelector("script").textContent);
    stage.hidden = false;
    if (spec.spec) {
      // One panel for each study: as many side by side as there is room for.
      const columns = Math.min(spec.columns, Math.max(1, Math.floor(stage.clientWidth / 300)));
      spec.columns = columns;
      spec.spec.width = Math.floor((stage.clientWidth - 60) / columns) - 25;
    }
    for (const { encoding } of (spec.spec ?? spec).layer) {
      for (const axis of ["x", "y"]) {
        const type = figure.dataset[axis];
        if (!type || !encoding[axis]) continue;
        const { zero, ...scale } = encoding[axis].scale;
        encoding[axis].scale = type === "log" ? { ...scale, type } : { ...scale, type, zero: false };
      }
    }
    figure.first = spec.params[0].value;
    spec.params[0].value = shown(figure);
    views.get(figure)?.finalize();
    const options = { actions: false, renderer: "svg", tooltip: { theme: "custom" } };
    try {
      views.set(figure, (await vegaEmbed(stage, spec, options)).view);
    } catch (error) {
      stage.hidden = true;
      console.error(error);
    }
  }

  // The button of a variant switches its curve; the button of a study, all its curves.
  function toggle(button) {
    const group = button.closest(".legend").dataset.group;
    const part = button.closest(".part");
    const on = !isOn(button);
    press(button, on);
    if (!button.dataset.label) all("button[data-label]", part).forEach((one) => press(one, on));
    const study = part.querySelector(".all");
    if (study) press(study, all("button[data-label]", part).some(isOn));
    for (const [figure, view] of views) {
      if (figure.dataset.group === group) view.signal("shown", shown(figure)).runAsync();
    }
  }

  function switchAxis(button) {
    const logarithmic = !isOn(button);
    press(button, logarithmic);
    const figure = button.closest("figure");
    figure.dataset[button.dataset.axis] = logarithmic ? "log" : "linear";
    draw(figure);
  }

  for (const element of all(".legend, .axes")) element.hidden = false;
  for (const figure of all("figure.plot")) {
    const folded = figure.closest("details:not([open])");
    // A plot in a closed element has no width yet.
    if (folded) folded.addEventListener("toggle", () => draw(figure), { once: true });
    else draw(figure);
  }

  // --- tables ------------------------------------------------------------------------------------

  function wordsOf(cell) {
    const copy = cell.cloneNode(true);
    all("details", copy).forEach((element) => element.remove());
    all("small", copy).forEach((note) => note.prepend(" "));
    return copy.textContent.replace(/\s+/g, " ").trim();
  }

  const latex = (words) =>
    words
      .replace(/[\\{}&%$#_]/g, (c) => (c === "\\" ? "\\textbackslash{}" : `\\${c}`))
      .replaceAll("\u2212", "$-$");
  const piped = (words) => words.replaceAll("|", "\\|");
  const formats = {
    CSV: (rows) => rows.map((row) => row.map((w) => `"${w.replaceAll('"', '""')}"`).join(",")),
    Markdown: ([head, ...rows]) =>
      [head, head.map(() => "---"), ...rows].map((row) => `| ${row.map(piped).join(" | ")} |`),
    LaTeX: (rows) => {
      const [head, ...others] = rows.map((row) => `${row.map(latex).join(" & ")} \\\\`);
      const start = `\\begin{tabular}{${"l".repeat(rows[0].length)}}`;
      return [start, "\\toprule", head, "\\midrule", ...others, "\\bottomrule", "\\end{tabular}"];
    },
  };

  function copy(box, format) {
    const area = box.querySelector("textarea") ?? document.createElement("textarea");
    area.readOnly = true;
    area.setAttribute("aria-label", `The table as ${format}`);
    area.textContent = formats[format](all("tr", box).map((row) => [...row.cells].map(wordsOf))).join("\n");
    box.append(area);
    area.select();
    const done = document.execCommand("copy"); // the only way that also works from a file
    box.querySelector(".copy output").textContent = done ? "copied" : "select and copy it below";
  }

  for (const box of all(".tablebox")) {
    const place = document.createElement("span");
    place.className = "copy";
    place.append("Copy as ");
    for (const format of Object.keys(formats)) {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", textContent: format });
      button.dataset.format = format;
      place.append(button);
    }
    place.append(document.createElement("output"));
    box.querySelector("figcaption").append(" ", place);
  }

  document.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (button?.dataset.format) copy(button.closest(".tablebox"), button.dataset.format);
    else if (button?.dataset.axis) switchAxis(button);
    else if (button?.closest(".legend")) toggle(button);
  });
})();
