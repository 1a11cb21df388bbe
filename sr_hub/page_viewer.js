// The viewer: two pictures of one size under a slider, zoomed and moved together, and the loupe below them.
// Gradio calls this with: element, trigger(event, data), props (props.value is what Python returned),
// upload(file) and watch(name, callback). Nothing is stored in the browser and nothing is fetched but pictures.
const $ = (selector) => element.querySelector(selector);
const all = (selector) => [...element.querySelectorAll(selector)];
const root = $(".viewer"), stage = $(".stage"), handle = $(".handle"), panels = $(".panels"), ask = $(".ask-invented input");
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
let shown = null; // the value whose pictures are on the stage
let split = 0.5, zoom = 1, fit = 1, x = 0, y = 0; // zoom: CSS pixels per picture pixel; x, y: its corner
let times = 4, shift = [0, 0], asked = 0;

// --- the stage -------------------------------------------------------------------------------------------
const size = () => shown.size;
const share = () => size()[0] / shown.full[0]; // below 1 where the pictures are shown shrunk

function draw() {
  if (!shown) return;
  const [width, height] = [size()[0] * zoom, size()[1] * zoom];
  const [w, h] = [stage.clientWidth, stage.clientHeight];
  x = width <= w ? (w - width) / 2 : clamp(x, w - width, 0);
  y = height <= h ? (h - height) / 2 : clamp(y, h - height, 0);
  for (const sheet of all(".sheet")) {
    sheet.style.transform = `translate(${x}px, ${y}px)`;
    sheet.style.width = `${width}px`;
    sheet.style.height = `${height}px`;
    sheet.classList.toggle("blocks", zoom >= 2);
  }
  $(".right").style.clipPath = `inset(0 0 0 ${split * 100}%)`;
  $(".left").style.clipPath = `inset(0 ${(1 - split) * 100}% 0 0)`;
  handle.style.left = `${split * 100}%`;
  handle.setAttribute("aria-valuenow", Math.round(split * 100));
  $(".zooms output").textContent = `${Math.round(zoom * share() * 100)} %`;
  stage.classList.toggle("zoomed", zoom > fit * 1.001);
  const spot = $(".spot"), loupe = shown.loupe;
  spot.hidden = !loupe;
  if (loupe) {
    const panel = $(".panel");
    const part = (length, index) => Math.min(1, length / times / loupe.size[index]); // of it is in the panel
    const wide = (loupe.box[2] - loupe.box[0]) * part(panel.clientWidth, 0);
    const high = (loupe.box[3] - loupe.box[1]) * part(panel.clientHeight, 1);
    const [cx, cy] = centre();
    spot.style.cssText = `left:${(cx - wide / 2) * 100}%;top:${(cy - high / 2) * 100}%;width:${wide * 100}%;height:${high * 100}%`;
  }
}

function layOut() { // the stage is as high as the picture needs, within the window
  if (!shown) return;
  const height = clamp((stage.clientWidth * size()[1]) / size()[0], 220, window.innerHeight * 0.62);
  const wasFit = zoom <= fit * 1.001;
  stage.style.height = `${Math.round(height)}px`;
  fit = Math.min(stage.clientWidth / size()[0], stage.clientHeight / size()[1]);
  if (wasFit || zoom < fit) zoom = fit;
  drawLoupe();
  draw();
}

function zoomTo(next, at) {
  if (!shown) return;
  const [px, py] = at || [stage.clientWidth / 2, stage.clientHeight / 2];
  next = clamp(next, fit, Math.max(8 / share(), fit));
  x = px - ((px - x) * next) / zoom;
  y = py - ((py - y) * next) / zoom;
  zoom = next;
  draw();
}

const inStage = (event) => {
  const box = stage.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
const setSplit = (event) => { split = clamp(inStage(event)[0] / stage.clientWidth, 0, 1); draw(); };

const pointers = new Map();
let drag = null;
stage.addEventListener("pointerdown", (event) => {
  if (!shown || event.button > 0 || event.target.closest(".welcome")) return;
  stage.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, inStage(event));
  const slides = event.target.closest(".handle") || !stage.classList.contains("zoomed");
  drag = { slides, grip: !!event.target.closest(".handle"), from: inStage(event), x, y, moved: false };
});
stage.addEventListener("pointermove", (event) => {
  if (!pointers.has(event.pointerId)) return;
  const before = [...pointers.values()], now = inStage(event);
  pointers.set(event.pointerId, now);
  if (pointers.size === 2) { // two fingers zoom and move
    const after = [...pointers.values()];
    const apart = ([a, b]) => Math.hypot(a[0] - b[0], a[1] - b[1]);
    zoomTo((zoom * apart(after)) / Math.max(1, apart(before)), [0, 1].map((i) => (after[0][i] + after[1][i]) / 2));
    drag.moved = true;
    return;
  }
  const [dx, dy] = [now[0] - drag.from[0], now[1] - drag.from[1]];
  if (!drag.moved && Math.hypot(dx, dy) < 4) return;
  drag.moved = true;
  if (drag.slides) setSplit(event);
  else { x = drag.x + dx; y = drag.y + dy; draw(); }
});
const release = (event) => {
  if (!pointers.delete(event.pointerId)) return;
  if (event.type === "pointerup" && drag && !drag.moved && !drag.grip && !pointers.size) {
    const [px, py] = inStage(event);
    const place = [(px - x) / (size()[0] * zoom), (py - y) / (size()[1] * zoom)];
    if (place.every((share) => share >= 0 && share <= 1)) look(place);
  }
};
stage.addEventListener("pointerup", release);
stage.addEventListener("pointercancel", release);
stage.addEventListener("wheel", (event) => {
  const zoomed = stage.classList.contains("zoomed");
  if (!shown || !(event.ctrlKey || event.metaKey || zoomed)) return; // a plain wheel scrolls the page
  event.preventDefault();
  zoomTo(zoom * Math.exp(-clamp(event.deltaY, -100, 100) / 300), inStage(event));
}, { passive: false });
stage.addEventListener("dblclick", (event) => {
  if (shown && !event.target.closest(".handle")) zoomTo(stage.classList.contains("zoomed") ? fit : 1 / share(), inStage(event));
});
handle.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -0.02, ArrowDown: -0.02, ArrowRight: 0.02, ArrowUp: 0.02, Home: -1, End: 1 }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  split = clamp(split + step, 0, 1);
  draw();
});
for (const button of all("[data-zoom]")) {
  button.addEventListener("click", () => {
    const wanted = { fit, one: 1 / share(), in: zoom * 1.5, out: zoom / 1.5 };
    if (shown) zoomTo(wanted[button.dataset.zoom]);
  });
}
const resizes = new ResizeObserver(layOut);
for (const part of [stage, panels]) resizes.observe(part);

// --- where it is invented --------------------------------------------------------------------------------
const drawInvented = () => root.classList.toggle("shows-invented", ask.checked && !!shown?.overlay);
ask.addEventListener("change", () => {
  drawInvented();
  if (ask.checked && shown && !shown.overlay) trigger("invented", {});
});

// --- the loupe -------------------------------------------------------------------------------------------
const centre = () => { // of the loupe, as shares of the picture, with what was dragged
  const { box, size: [w, h], focus } = shown.loupe;
  const [fx, fy] = [focus[0] - shift[0] / times, focus[1] - shift[1] / times];
  return [box[0] + (fx / w) * (box[2] - box[0]), box[1] + (fy / h) * (box[3] - box[1])];
};

function look([px, py]) {
  panels.classList.add("waiting");
  trigger("look", { x: px, y: py, run: ++asked });
}

function drawLoupe() {
  $(".loupe").hidden = !shown || !shown.loupe;
  if (!shown || !shown.loupe) return;
  const { size: [w, h], focus } = shown.loupe;
  for (const panel of all(".panel")) {
    const image = panel.querySelector("img");
    image.style.width = `${w * times}px`;
    image.style.height = `${h * times}px`;
    // Inside the part that came as far as the panel allows, so that no side of it is empty.
    const move = [0, 1].map((i) => {
      const [room, length] = i ? [panel.clientHeight, h * times] : [panel.clientWidth, w * times];
      const at = room / 2 - focus[i] * times + shift[i];
      return length <= room ? (room - length) / 2 : clamp(at, room - length, 0);
    });
    image.style.transform = `translate(${move[0]}px, ${move[1]}px)`;
  }
  for (const button of all("[data-times]")) button.setAttribute("aria-pressed", String(+button.dataset.times === times));
}

for (const button of all("[data-times]")) {
  button.addEventListener("click", () => {
    shift = shift.map((pixels) => (pixels * +button.dataset.times) / times);
    times = +button.dataset.times;
    drawLoupe();
    draw();
  });
}
let grab = null;
panels.addEventListener("pointerdown", (event) => {
  if (!shown?.loupe) return;
  panels.setPointerCapture(event.pointerId);
  grab = { from: [event.clientX, event.clientY], shift: [...shift] };
});
panels.addEventListener("pointermove", (event) => {
  if (!grab) return;
  shift = [event.clientX - grab.from[0] + grab.shift[0], event.clientY - grab.from[1] + grab.shift[1]];
  drawLoupe();
  draw();
});
const letGo = () => {
  if (grab && (shift[0] !== grab.shift[0] || shift[1] !== grab.shift[1])) look(centre().map((share) => clamp(share, 0, 1)));
  grab = null;
};
panels.addEventListener("pointerup", letGo);
panels.addEventListener("pointercancel", letGo);

// --- what Python sends -----------------------------------------------------------------------------------
let newest = 0;
async function load(files) { // decoded before anything changes, so that nothing flashes
  const images = files.map((file) => Object.assign(new Image(), { src: file.url }));
  await Promise.all(images.map((image) => image.decode()));
}

async function show() {
  const value = props.value || {}, turn = ++newest;
  root.classList.toggle("is-empty", !value.left);
  root.classList.remove("is-working");
  if (!value.left) {
    shown = null;
    ask.checked = false;
    panels.classList.remove("waiting");
    drawInvented();
    stage.style.height = "";
    for (const image of all(".layer img")) image.removeAttribute("src");
    drawLoupe();
    return;
  }
  const files = [value.left, value.right, value.overlay, ...(value.loupe ? value.loupe.files : [])].filter(Boolean);
  try { await load(files); } catch { return; } // gone already: a newer value is on its way
  if (turn !== newest) return;
  const same = shown && shown.photo === value.photo && String(shown.size) === String(value.size);
  shown = value;
  const [left, right, invented] = all(".layer img");
  left.src = value.left.url;
  right.src = value.right.url;
  if (value.overlay) invented.src = value.overlay.url; else invented.removeAttribute("src");
  if (!value.overlay && value.stopped) ask.checked = false;
  drawInvented();
  if (!value.overlay && ask.checked && value.ready) trigger("invented", {});
  $(".ask-invented").hidden = !value.two_ends;
  $(".left-tag").textContent = value.labels[0];
  $(".right-tag").textContent = value.labels[1];
  if (value.loupe) {
    panels.replaceChildren(...value.loupe.files.map((file, index) => {
      const panel = document.createElement("figure"), name = document.createElement("figcaption");
      panel.className = "panel";
      name.textContent = value.loupe.names[index];
      panel.append(Object.assign(new Image(), { src: file.url, alt: name.textContent, draggable: false }), name);
      return panel;
    }));
    shift = [0, 0];
  }
  if (!value.busy) panels.classList.remove("waiting");
  if (!same) { zoom = 0; fit = 1; }
  layOut();
  stage.dataset.photo = value.photo;
}

// --- photos handed in ------------------------------------------------------------------------------------
const work = () => root.classList.add("is-working"); // until Python sends something
let taking = 0; // number of the photo that was handed in last: an older one may arrive later
async function take(list) {
  if (!list.length) return;
  if (list.length > 1) trigger("left", { what: "others" });
  const turn = ++taking;
  root.classList.add("is-uploading");
  try {
    const { path } = await upload(list[0]);
    const late = turn !== taking; // Python then deletes it
    if (!late) work();
    trigger("photo", { path, late });
  } catch { /* gradio has said why */ } finally {
    if (turn === taking) root.classList.remove("is-uploading");
  }
}
$("#photo-file").addEventListener("change", async (event) => {
  await take(event.target.files);
  event.target.value = ""; // the same file again is a change, too
});
document.addEventListener("paste", (event) => {
  if (!event.defaultPrevented && event.clipboardData?.files.length) take(event.clipboardData.files);
});
function takeOne(given) {
  const photos = given.filter((one) => !one.folder).map((one) => one.file);
  if (!photos.length && given.length) trigger("left", { what: "folder" });
  take(photos);
}

// --- several photos, and folders of them: as if they had been chosen in gradio's field -------------------------
const isPicture = (file) => file.type.startsWith("image/") || /\.(heic|heif|jxl|avif|tiff?)$/i.test(file.name);
const promised = (entry, method) => new Promise((resolve, reject) => entry[method](resolve, reject));
async function picturesIn(folder) { // by name, with those of the folders inside
  const reader = folder.createReader(), inside = [];
  for (let some = true; some;) { // a reader gives a hundred at a time
    const more = await promised(reader, "readEntries");
    inside.push(...more);
    some = more.length;
  }
  inside.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  const files = await Promise.all(inside.map((one) => one.isFile ? promised(one, "file") : picturesIn(one)));
  return files.flat().filter(isPicture);
}
async function takeAll(field, given) {
  const data = new DataTransfer();
  const files = await Promise.all(given.map((one) => one.folder ? picturesIn(one.folder) : one.file));
  for (const file of files.flat()) data.items.add(file);
  if (!data.files.length) { trigger("left", { what: "empty" }); return; }
  const input = field.querySelector("input[type=file]");
  input.files = data.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

// --- dropped, anywhere: beside the stage or the field a photo is easily let go ---------------------------------
const handedIn = (transfer) => [...transfer.items].filter((item) => item.kind === "file").map((item) => {
  const entry = item.webkitGetAsEntry(); // null for what is no file on the disk
  return { folder: entry?.isDirectory ? entry : null, file: item.getAsFile() };
});
for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => {
    const field = document.querySelector("#batch-files"), one = stage.offsetParent;
    if (event.defaultPrevented || !(one || field?.offsetParent)) return;
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    stage.classList.toggle("over", name === "dragover");
    if (name === "dragover") return;
    const given = handedIn(event.dataTransfer);
    if (one) { takeOne(given); return; }
    event.stopPropagation(); // gradio's field knows no folders
    event.target.dispatchEvent(new DragEvent("dragleave", { bubbles: true })); // ends its highlight
    takeAll(field, given).catch(() => trigger("left", { what: "unreadable" }));
  }, true);
}
document.addEventListener("dragleave", (event) => { // of the window, not from one element to the next
  if (!event.relatedTarget) stage.classList.remove("over");
});

for (const [index, example] of (props.examples || []).entries()) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = example.name;
  button.append(Object.assign(new Image(), { src: example.picture, alt: example.name }));
  button.addEventListener("click", () => {
    taking++;
    root.classList.remove("is-uploading");
    work();
    trigger("example", { index });
  });
  $(".examples").append(button);
}
// A page that the browser kept and shows again has lost its files with the session.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
watch("value", show);
show();
