"use strict";
// Everything is on the page already; this only switches what is shown.
const byId = (id) => document.getElementById(id);
byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

const compare = byId("compare");
if (compare) {
  const state = { face: 0, left: byId("left").value, right: byId("right").value };
  const captions = JSON.parse(compare.dataset.captions);
  const stage = compare.querySelector(".stage");
  const show = () => {
    for (const strip of compare.querySelectorAll(".strip[data-kind]")) {
      const arm = strip.dataset.side ? state[strip.dataset.side] : "";
      const label = [arm, strip.dataset.what, `input ${state.face + 1}`, captions[state.face]];
      strip.setAttribute("aria-label", label.filter(Boolean).join(", "));
      strip.className = `strip ${strip.dataset.kind}-${arm} ${strip.dataset.over || ""}`;
      strip.style.setProperty("--row", state.face);
    }
    for (const name of compare.querySelectorAll("[data-name]")) name.textContent = state[name.dataset.name];
    byId("asked").textContent = captions[state.face] || "";
    for (const button of compare.querySelectorAll(".thumbs button")) button.setAttribute("aria-pressed", String(+button.dataset.row === state.face));
  };
  const cut = (percent) => { byId("cut").value = percent; stage.style.setProperty("--cut", percent + "%"); };
  byId("cut").addEventListener("input", (event) => cut(event.target.value));
  byId("flip").addEventListener("click", () => cut(byId("cut").value > 50 ? 0 : 100));
  for (const side of ["left", "right"]) byId(side).addEventListener("change", (event) => { state[side] = event.target.value; show(); });
  for (const button of compare.querySelectorAll(".thumbs button")) button.addEventListener("click", () => { state.face = +button.dataset.row; show(); });
  stage.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse" && event.buttons === 0) return;
    const box = stage.getBoundingClientRect();
    cut(Math.round(Math.max(0, Math.min(100, (100 * (event.clientX - box.left)) / box.width))));
  });
  show();
}

const extremes = byId("extremes");
if (extremes) {
  const choose = () => { for (const block of extremes.querySelectorAll("[data-arm]")) block.hidden = block.dataset.arm !== byId("which").value; };
  byId("which").addEventListener("change", choose);
  choose();
}
document.documentElement.dataset.ready = "yes";
