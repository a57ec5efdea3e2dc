// The line over the pictures, and the values under the pointer in the curves. Without it the page shows two pictures.
for (const view of document.querySelectorAll(".view")) {
  const [line, left, right] = ["input", ".left", ".right"].map(name => view.querySelector(name));
  const show = () => {
    view.style.setProperty("--at", line.value + "%");
    view.querySelectorAll(".stack2 img").forEach((image, index) => {
      image.classList.toggle("under", index == right.value);
      image.classList.toggle("over", index == left.value);
    });
  };
  [line, left, right].forEach(each => each.addEventListener("input", show));
  const stack = view.querySelector(".stack2");
  const drag = event => {
    if (event.type == "pointermove" && !event.buttons) return;
    const box = stack.getBoundingClientRect();
    line.value = Math.max(0, Math.min(100, 100 * (event.clientX - box.left) / box.width));
    show();
  };
  stack.addEventListener("pointerdown", drag);
  stack.addEventListener("pointermove", drag);
  show();
}
for (const figure of document.querySelectorAll("svg[data-lines]")) {
  const {box, span, lines} = JSON.parse(figure.dataset.lines);
  const told = document.createElement("div");
  told.className = "told";
  told.setAttribute("role", "status");
  figure.parentNode.append(told);
  const tell = event => {
    const size = figure.getBoundingClientRect();
    const share = ((event.clientX - size.left) / size.width - box[0]) / (box[2] - box[0]);
    const step = span[0] + Math.max(0, Math.min(1, share)) * (span[1] - span[0]);
    told.replaceChildren(...lines.map(({name, colour, at}) => {
      const near = at.reduce((best, point) => Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best);
      const part = document.createElement("span");
      part.textContent = `${name}: ${near[1]} at ${figure.dataset.unit} ${near[0]}`;
      part.style.setProperty("--dot", colour);
      return part;
    }));
  };
  figure.addEventListener("pointermove", tell);
  figure.addEventListener("pointerdown", tell);
}
