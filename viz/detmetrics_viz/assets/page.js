// The browser view: points, boxes and what became of them. Plain script; `THREE` is the bundle before it.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const DATA = JSON.parse($("scenes").textContent);
  const FRAMES = DATA.frames;
  const root = document.documentElement;
  const OUTCOME = { tp: 0, fp: 1, missed: 2, found: 3, uncounted: 4, truth: 5, pred: 6 };
  // In the order of looks.LAYERS; a digit shows and hides each, as in the window. The other keys are the window's, too.
  const LAYERS = [
    ["points", "Points"], ["truth", "Truth"], ["predictions", "Predictions"], ["uncounted", "Not counted"], ["matches", "Lines to matches"],
    ["velocity", "Velocity"], ["rings", "Range rings"], ["ego", "Own car"], ["labels", "Labels"], ["legend", "Legend"],
  ];
  const VIEWS = ["behind", "bird", "follow"];
  const KEYS = [
    ["← →", "previous frame, next frame; space plays, stops"],
    ["− =", "least score down, up; F: from the best F1 of each class"],
    ["C, B", "next colour of points, of boxes"],
    ["A", "labels of mistakes, of all"],
    ["V", "from behind, from above, following the own car or the picked box; X: from here again"],
    ["N, shift N", "pick the next box, the one before; G goes there, U or Esc lets go"],
    ["1 … 9, 0", "layers on, off"],
    ["T, S, H", "dark or light, save a picture, these keys"],
    ["drag", "turn; right button or two fingers move, wheel or pinch comes nearer, a click picks"],
  ];
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

  // ---------------------------------------------------------------- state and what follows from it

  const look = DATA.look;
  const state = {
    at: 0, points: look.points, boxes: look.boxes, score: look.score, size: look.pointSize, layers: new Set(look.layers),
    everyLabel: look.labels === "all", hidden: new Set(), picked: -1, view: look.view,
  };
  let frame = null; // the unpacked arrays of the frame, and what the file told of it
  let theme = DATA.themes[root.dataset.theme];
  const THEMES = Object.keys(DATA.themes);
  const nextTheme = () => THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];

  const bytes = (text) => {
    const plain = atob(text), out = new Uint8Array(plain.length);
    for (let i = 0; i < plain.length; i++) out[i] = plain.charCodeAt(i);
    return out;
  };
  const RAMPS = {};
  for (const [name, one] of Object.entries(DATA.themes)) {
    RAMPS[name] = {};
    for (const [mode, text] of Object.entries(one.ramps)) RAMPS[name][mode] = bytes(text);
  }
  const ramp = (mode) => RAMPS[root.dataset.theme][mode];
  const rgb = (color) => [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16) / 255);
  const css = (color) => `rgb(${color.map((part) => Math.round(255 * part)).join(" ")})`;

  const KINDS = { f4: Float32Array, i4: Int32Array, i2: Int16Array, u1: Uint8Array };
  const kept = new Map(); // a few frames, unpacked
  async function unpack(index) {
    if (kept.has(index)) return kept.get(index);
    const told = FRAMES[index];
    const stream = new Blob([bytes($(`arrays${index}`).textContent)]).stream().pipeThrough(new DecompressionStream("deflate"));
    const buffer = await new Response(stream).arrayBuffer();
    const arrays = {};
    let offset = 0;
    for (const [name, kind, count] of told.layout) {
      arrays[name] = new KINDS[kind](buffer, offset, count);
      offset += arrays[name].byteLength;
    }
    const one = { ...told, arrays, cutoff: told.cutoff.map((value) => value ?? Infinity) };
    kept.set(index, one);
    if (kept.size > 6) kept.delete(kept.keys().next().value);
    return one;
  }

  const nBoxes = () => frame.pred.length;
  // The least score that a key, the slider and the box beside it start from: as Session.score has it.
  const HIGHEST = FRAMES.reduce((best, one) => one.score.reduce((high, value) => Math.max(high, value ?? 0), best), 1);
  function leastNow() {
    if (state.score !== null) return state.score;
    const finite = frame.cutoff.filter(Number.isFinite).sort((a, b) => a - b), half = finite.length / 2;
    return finite.length ? (finite[Math.ceil(half) - 1] + finite[Math.floor(half)]) / 2 : 0;
  }
  const stepped = (by) => Math.min(Math.max(Math.round(100 * (0.05 * Math.round(leastNow() / 0.05) + by)) / 100, 0), HIGHEST);
  const isShown = (i) => !frame.pred[i] || frame.score[i] >= (state.score ?? frame.cutoff[frame.label[i]]);
  function outcome(i) {
    if (!frame.matched) return frame.pred[i] ? OUTCOME.pred : OUTCOME.truth;
    if (!frame.counts[i]) return OUTCOME.uncounted;
    const other = frame.partner[i];
    if (frame.pred[i]) return other >= 0 ? OUTCOME.tp : OUTCOME.fp;
    return other >= 0 && isShown(other) ? OUTCOME.found : OUTCOME.missed;
  }
  const group = (i) => (state.boxes === "class" ? `class ${frame.labels[frame.label[i]]}` : `outcome ${outcome(i)}`);
  function isVisible(i) {
    if (!isShown(i) || !state.layers.has(frame.pred[i] ? "predictions" : "truth")) return false;
    if (!frame.counts[i] && !state.layers.has("uncounted")) return false;
    return state.boxes === "score" || !state.hidden.has(group(i));
  }
  function isLabelled(i) {
    if (!state.layers.has("labels") || !isVisible(i)) return false;
    const what = outcome(i);
    if (!state.everyLabel && frame.matched) return what === OUTCOME.fp || what === OUTCOME.missed;
    return what !== OUTCOME.found;
  }
  function boxColor(i) {
    if (state.boxes === "class") return rgb(theme.classes[frame.label[i] % theme.classes.length]);
    if (state.boxes === "score" && !frame.pred[i]) return rgb(theme.outcomes[OUTCOME.found]);
    if (state.boxes === "score") {
      const at = 3 * Math.round(255 * Math.min(Math.max(frame.score[i], 0), 1));
      return [...ramp("score").slice(at, at + 3)].map((part) => part / 255);
    }
    return rgb(theme.outcomes[outcome(i)]);
  }
  function summary() {
    const number = new Array(DATA.outcomes.length).fill(0);
    const sums = frame.errorNames.map(() => [0, 0]);
    for (let i = 0; i < nBoxes(); i++) {
      if (!isShown(i)) continue;
      const what = outcome(i);
      number[what]++;
      if (what !== OUTCOME.tp) continue;
      frame.errors[i].forEach((value, e) => { if (value !== null) { sums[e][0] += value; sums[e][1]++; } });
    }
    return { number, errors: sums.map(([sum, n]) => (n ? sum / n : null)) };
  }

  // ---------------------------------------------------------------- the stage

  const canvas = $("stage"), letters = $("letters");
  function lacks(what) {
    const fault = document.createElement("p");
    fault.id = "fault";
    fault.setAttribute("role", "alert");
    fault.textContent = `This view needs ${what}.`;
    document.body.replaceChildren(fault); // nothing else here would do anything
    root.dataset.ready = "no";
  }
  if (typeof DecompressionStream === "undefined") {
    lacks("a newer browser: this one cannot unpack the points (DecompressionStream; Chrome 80, Safari 16.4, Firefox 113)");
    return;
  }
  let renderer;
  try {
    renderer = new THREE.WebGLRenderer({ canvas, antialias: true, powerPreference: "high-performance" });
  } catch {
    lacks("WebGL, which this browser does not have or has switched off");
    return;
  }
  THREE.ColorManagement.enabled = false; // colours are shown as they are given
  renderer.outputColorSpace = THREE.LinearSRGBColorSpace;
  const scene = new THREE.Scene();
  const camera = new THREE.PerspectiveCamera(50, 1, 0.2, 2000);
  camera.up.set(0, 0, 1);
  const controls = new THREE.OrbitControls(camera, canvas);
  Object.assign(controls, { zoomToCursor: true, maxDistance: 900, minDistance: 1, screenSpacePanning: false, enableDamping: !calm, dampingFactor: 0.14 });
  controls.addEventListener("change", () => draw());

  const rampTexture = new THREE.DataTexture(new Uint8Array(1024), 256, 1);
  const cloud = new THREE.Points(
    new THREE.BufferGeometry(),
    new THREE.ShaderMaterial({
      uniforms: { ramp: { value: rampTexture }, size: { value: 2 }, dpr: { value: 1 } },
      vertexShader: `attribute float shade; uniform sampler2D ramp; uniform float size, dpr; varying vec3 tint;
        void main() {
          vec4 at = modelViewMatrix * vec4(position, 1.0);
          gl_Position = projectionMatrix * at;
          gl_PointSize = dpr * clamp(size * 30.0 / -at.z, size * 0.8, size * 1.9);
          tint = texture2D(ramp, vec2((shade + 0.5) / 256.0, 0.5)).rgb;
        }`,
      fragmentShader: `varying vec3 tint;
        void main() {
          vec2 off = gl_PointCoord - 0.5;
          if (dot(off, off) > 0.25) discard;
          gl_FragColor = vec4(tint, 1.0);
        }`,
    }),
  );
  cloud.frustumCulled = false;
  scene.add(cloud);

  const strokes = {};
  for (const [name, width, order] of [["rings", 1, 0], ["ego", 1.6, 1], ["matches", 1.5, 2], ["velocity", 1.8, 3], ["boxes", 1.8, 4], ["picked", 3.6, 5]]) {
    const material = new THREE.LineMaterial({ linewidth: width, vertexColors: true });
    const lines = new THREE.LineSegments2(new THREE.LineSegmentsGeometry(), material);
    lines.frustumCulled = false;
    lines.renderOrder = order;
    material.depthTest = name !== "picked"; // lies on the lines of its box
    strokes[name] = lines;
    scene.add(lines);
  }
  const skin = new THREE.Mesh(
    new THREE.BufferGeometry(),
    new THREE.MeshBasicMaterial({ vertexColors: true, transparent: true, opacity: 0.09, depthWrite: false, side: THREE.DoubleSide }),
  );
  skin.frustumCulled = false;
  skin.renderOrder = 6;
  scene.add(skin);

  function stroke(name, ends, colors) {
    const lines = strokes[name];
    lines.geometry.dispose();
    lines.visible = ends.length > 0;
    if (!lines.visible) return;
    lines.geometry = new THREE.LineSegmentsGeometry();
    lines.geometry.setPositions(ends);
    lines.geometry.setColors(colors);
  }

  // ---------------------------------------------------------------- what a frame shows

  const FACES = [0, 1, 2, 0, 2, 3, 4, 5, 6, 4, 6, 7, 0, 1, 5, 0, 5, 4, 1, 2, 6, 1, 6, 5, 2, 3, 7, 2, 7, 6, 3, 0, 4, 3, 4, 7];

  function putPoints() {
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(frame.arrays.points, 3));
    geometry.setAttribute("shade", new THREE.BufferAttribute(frame.arrays[`shade_${pointMode()}`] ?? new Uint8Array(frame.arrays.points.length / 3), 1));
    cloud.geometry.dispose();
    cloud.geometry = geometry;
    cloud.scale.setScalar(frame.step);
    const colors = ramp(pointMode());
    for (let i = 0; i < 256; i++) rampTexture.image.data.set([colors[3 * i], colors[3 * i + 1], colors[3 * i + 2], 255], 4 * i);
    rampTexture.needsUpdate = true;
    cloud.material.uniforms.size.value = state.size ?? frame.pointSize;
    cloud.visible = state.layers.has("points") && frame.arrays.points.length > 0;
  }
  const pointMode = () => (state.points in frame.ranges ? state.points : Object.keys(frame.ranges)[0] ?? "height");

  function edgesOf(boxes) {
    const ends = new Float32Array(boxes.length * DATA.edges.length * 3);
    let k = 0;
    for (const i of boxes) for (const node of DATA.edges) for (let axis = 0; axis < 3; axis++) ends[k++] = frame.arrays.nodes[30 * i + 3 * node + axis];
    return ends;
  }
  const repeated = (color, count) => {
    const out = new Float32Array(3 * count);
    for (let i = 0; i < count; i++) out.set(color, 3 * i);
    return out;
  };
  const joined = (parts) => {
    const out = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) { out.set(part, at); at += part.length; }
    return out;
  };

  function putBoxes() {
    const shown = [...Array(nBoxes()).keys()].filter(isVisible);
    const rank = (i) => frame.pred[i] + 2 * frame.counts[i];
    shown.sort((a, b) => rank(a) - rank(b));
    const color = new Map(shown.map((i) => [i, boxColor(i)]));
    const perBox = DATA.edges.length;
    stroke("boxes", edgesOf(shown), joined(shown.map((i) => repeated(color.get(i), perBox))));
    const positions = new Float32Array(shown.length * FACES.length * 3), colors = new Float32Array(positions.length);
    let k = 0;
    for (const i of shown) for (const node of FACES) {
      for (let axis = 0; axis < 3; axis++) positions[k + axis] = frame.arrays.nodes[30 * i + 3 * node + axis];
      colors.set(color.get(i), k);
      k += 3;
    }
    skin.geometry.dispose();
    skin.geometry = new THREE.BufferGeometry();
    skin.geometry.setAttribute("position", new THREE.BufferAttribute(positions, 3));
    skin.geometry.setAttribute("color", new THREE.BufferAttribute(colors, 3));
    skin.visible = shown.length > 0;
    for (const [name, fixed] of [["rings", theme.faint], ["ego", theme.ego], ["matches", theme.match], ["velocity", null]]) {
      const ends = frame.arrays[`${name}_ends`], box = frame.arrays[`${name}_box`], parts = [], tints = [];
      for (let line = 0; state.layers.has(name) && line < box.length; line++) {
        const i = box[line];
        if (i >= 0 && !color.has(i)) continue;
        if (name === "matches" && !color.has(frame.partner[i])) continue;
        parts.push(ends.subarray(6 * line, 6 * line + 6));
        tints.push(repeated(fixed ? rgb(fixed) : color.get(i), 2));
      }
      stroke(name, joined(parts), joined(tints));
    }
    if (state.picked >= 0 && !color.has(state.picked)) pick(-1);
    else putPicked();
  }

  function putPicked() {
    const some = state.picked >= 0 ? [state.picked] : [];
    stroke("picked", edgesOf(some), repeated(rgb(theme.text), some.length * DATA.edges.length));
  }

  // ---------------------------------------------------------------- drawing, and letters over it

  let isWaiting = false, flight = null;
  function draw() {
    if (isWaiting) return;
    isWaiting = true;
    requestAnimationFrame(paint);
  }
  function paint(now) {
    isWaiting = false;
    if (!frame) return;
    if (flight) {
      const t = Math.min((now - flight.start) / flight.takes, 1), ease = t * t * (3 - 2 * t);
      camera.position.lerpVectors(flight.from, flight.to, ease);
      controls.target.lerpVectors(flight.aimFrom, flight.aimTo, ease);
      if (t === 1) flight = null;
      draw();
    }
    controls.update(); // asks for another drawing while it still moves
    renderer.render(scene, camera);
    write();
    if (!flight && root.dataset.ready !== "yes") root.dataset.ready = "yes";
  }

  const pen = letters.getContext("2d");
  const spot = new THREE.Vector3();
  function project(x, y, z) {
    spot.set(x, y, z).project(camera);
    return { x: ((spot.x + 1) / 2) * canvas.clientWidth, y: ((1 - spot.y) / 2) * canvas.clientHeight, seen: spot.z > -1 && spot.z < 1 };
  }
  function node(i, k) {
    const at = 30 * i + 3 * k;
    return [frame.arrays.nodes[at], frame.arrays.nodes[at + 1], frame.arrays.nodes[at + 2]];
  }
  function top(i) {
    const corners = [4, 5, 6, 7].map((k) => node(i, k));
    return [0, 1, 2].map((axis) => corners.reduce((sum, corner) => sum + corner[axis], 0) / 4);
  }
  function write() {
    const width = canvas.clientWidth, height = canvas.clientHeight, dpr = renderer.getPixelRatio();
    pen.setTransform(dpr, 0, 0, dpr, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.textBaseline = "middle";
    const face = getComputedStyle(document.body).fontFamily;
    const taken = [];
    const free = (x, y, w, h) => {
      for (const [a, b, c, d] of taken) if (x < a + c && a < x + w && y < b + d && b < y + h) return false;
      taken.push([x, y, w, h]);
      return true;
    };
    if (state.layers.has("labels")) {
      pen.font = `600 11px ${face}`;
      const wanted = [];
      for (let i = 0; i < nBoxes(); i++) {
        if (i !== state.picked && !isLabelled(i)) continue;
        const [x, y, z] = top(i), at = project(x, y, z);
        if (!at.seen || at.x < -60 || at.x > width + 60 || at.y < -20 || at.y > height + 20) continue;
        wanted.push({ i, at, far: i === state.picked ? -1 : camera.position.distanceTo(spot.set(x, y, z)) });
      }
      wanted.sort((a, b) => a.far - b.far);
      for (const { i, at } of wanted.slice(0, 120)) {
        const short = frame.texts[i].length > 44 ? `${frame.texts[i].slice(0, 43)}…` : frame.texts[i];
        const text = outcome(i) === OUTCOME.missed ? `${short} missed` : short; // not by its colour alone, as on pictures
        const w = pen.measureText(text).width + 10, x = at.x - w / 2, y = at.y - 22;
        if (!free(x, y, w, 16) && i !== state.picked) continue;
        pen.globalAlpha = 0.86;
        pen.fillStyle = theme.panel;
        pen.beginPath();
        pen.roundRect(x, y, w, 16, 4);
        pen.fill();
        pen.globalAlpha = 1;
        pen.fillStyle = i === state.picked ? theme.text : css(boxColor(i));
        pen.fillText(text, x + 5, y + 8.5);
      }
    }
    if (state.layers.has("rings")) {
      pen.font = `11px ${face}`;
      pen.fillStyle = getComputedStyle(root).getPropertyValue("--quiet");
      pen.globalAlpha = 0.8;
      for (const radius of frame.rings) {
        const at = project(radius * Math.cos(0.6), -radius * Math.sin(0.6), frame.ground);
        const text = `${radius} m`, w = pen.measureText(text).width;
        if (at.seen && free(at.x - w / 2, at.y - 7, w, 14)) pen.fillText(text, at.x - w / 2, at.y);
      }
      pen.globalAlpha = 1;
    }
  }

  // ---------------------------------------------------------------- where one looks from

  function fly(position, target) {
    const to = new THREE.Vector3(...position), aimTo = new THREE.Vector3(...target);
    if (calm || !frame || root.dataset.ready !== "yes") {
      camera.position.copy(to);
      controls.target.copy(aimTo);
      flight = null;
    } else {
      flight = { from: camera.position.clone(), to, aimFrom: controls.target.clone(), aimTo, start: performance.now(), takes: 450 };
    }
    draw();
  }
  function stand(view) {
    state.view = view;
    const ground = frame.ground;
    if (view === "bird") {
      const half = (frame.rings[0] ?? 10) <= 10 ? 45 : 80, wide = canvas.clientWidth / Math.max(canvas.clientHeight, 1);
      const up = half / Math.tan((camera.fov * Math.PI) / 360) / Math.min(wide, 1);
      fly([-0.0005 * up, 0, ground + up], [0, 0, ground]);
    } else if (view === "follow") {
      const i = state.picked, [x, y, z] = i < 0 ? [0, 0, ground] : frame.center[i], yaw = i < 0 ? 0 : frame.yaw_rad[i];
      fly([x - 12 * Math.cos(yaw), y - 12 * Math.sin(yaw), z + 5.5], [x + 6 * Math.cos(yaw), y + 6 * Math.sin(yaw), z]);
    } else {
      fly([-20, 0, ground + 13], [16, 0, ground]);
    }
    for (const button of document.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", String(button.dataset.view === view));
  }
  function approach(i) {
    if (i < 0) return;
    const [x, y, z] = frame.center[i], away = camera.position.clone().sub(controls.target).normalize();
    const far = Math.max(7, 2.6 * Math.max(...frame.size[i]));
    fly([x + far * away.x, y + far * away.y, z + far * Math.max(away.z, 0.25)], [x, y, z]);
  }

  // ---------------------------------------------------------------- picking

  const near = new THREE.Vector3(), far = new THREE.Vector3();
  /** Boxes under a place on the screen, the nearest first; small and far ones reach a few pixels further. */
  function under(px, py) {
    const x = (px / canvas.clientWidth) * 2 - 1, y = 1 - (py / canvas.clientHeight) * 2;
    near.set(x, y, -1).unproject(camera);
    far.set(x, y, 1).unproject(camera).sub(near).normalize();
    const start = near.toArray(), ray = far.toArray(), hits = [];
    for (let i = 0; i < nBoxes(); i++) {
      if (!isVisible(i)) continue;
      const corner = [0, 1, 3, 4].map((k) => node(i, k)); // front left, rear left, front right, the one above
      const middle = [0, 1, 2].map((axis) => ([0, 1, 2, 3, 4, 5, 6, 7].reduce((sum, k) => sum + node(i, k)[axis], 0)) / 8);
      const offset = middle.map((value, axis) => value - start[axis]);
      const reach = 0.012 * Math.hypot(...offset);
      let enter = 0, leave = Infinity;
      for (const other of [1, 2, 3]) {
        const side = [0, 1, 2].map((axis) => corner[other][axis] - corner[0][axis]), length = Math.hypot(...side) || 1e-6;
        const along = side.map((value) => value / length);
        const half = length / 2 + reach, at = along.reduce((sum, value, axis) => sum + value * offset[axis], 0);
        const speed = along.reduce((sum, value, axis) => sum + value * ray[axis], 0);
        if (Math.abs(speed) < 1e-9) { if (Math.abs(at) > half) leave = -1; continue; }
        const [a, b] = [(at - half) / speed, (at + half) / speed].sort((p, q) => p - q);
        enter = Math.max(enter, a);
        leave = Math.min(leave, b);
      }
      if (enter <= leave) hits.push({ i, enter: enter - 0.5 * frame.pred[i] }); // of a pair the prediction is first
    }
    return hits.sort((a, b) => a.enter - b.enter).map((hit) => hit.i);
  }
  let down = null, last = { x: -9, y: -9, n: 0 };
  canvas.addEventListener("pointerdown", (event) => {
    flight = null;
    down = event.isPrimary && event.button === 0 ? { x: event.clientX, y: event.clientY, when: event.timeStamp } : null;
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!down || Math.hypot(event.clientX - down.x, event.clientY - down.y) > 6 || event.timeStamp - down.when > 600) return;
    const hits = under(event.clientX, event.clientY);
    const again = Math.hypot(event.clientX - last.x, event.clientY - last.y) < 6;
    last = { x: event.clientX, y: event.clientY, n: again ? last.n + 1 : 0 }; // once more on the same place: the box behind
    pick(hits.length ? hits[last.n % hits.length] : -1);
  });
  canvas.addEventListener("dblclick", () => approach(state.picked));

  const number = (value, digits) => (value === null ? "–" : value.toFixed(digits));
  function pick(i) {
    state.picked = i;
    putPicked();
    const card = $("card");
    card.hidden = i < 0;
    document.body.classList.toggle("picked", i >= 0);
    if (i >= 0) {
      const what = DATA.outcomes[outcome(i)];
      card.querySelector("h2").textContent = frame.labels[frame.label[i]];
      card.style.setProperty("--mark", css(boxColor(i)));
      const [x, y, z] = frame.center[i], rows = [["outcome", what]];
      if (frame.pred[i]) rows.push(["score", number(frame.score[i], 3)]);
      frame.errorNames.forEach((name, e) => {
        if (frame.errors[i][e] !== null) rows.push([name, `${number(frame.errors[i][e], 2)} ${frame.errorUnits[e]}`.trim()]);
      });
      const other = frame.partner[i];
      if (other >= 0) rows.push([frame.pred[i] ? "its truth" : "its prediction", frame.texts[other]]);
      rows.push(["away", `${Math.hypot(x, y).toFixed(1)} m`], ["points", frame.n_points[i].toLocaleString("en")]);
      rows.push(["size", `${frame.size[i].map((value) => value.toFixed(2)).join(" × ")} m`]);
      const speed = frame.velocity[i], isKnown = speed[0] !== null && speed[1] !== null;
      const degrees = Math.round((frame.yaw_rad[i] * 180) / Math.PI), heading = `${degrees === -180 ? 180 : degrees}°`;
      rows.push(isKnown ? ["heading, speed", `${heading}, ${Math.hypot(...speed).toFixed(1)} m/s`] : ["heading", heading]);
      rows.push(["centre", `${x.toFixed(1)}, ${y.toFixed(1)}, ${z.toFixed(1)} m`]);
      fill(card.querySelector("dl"), rows);
      $("other").hidden = other < 0;
      $("said").textContent = `${frame.texts[i]}, ${what}`;
    }
    draw();
  }
  function step(by) {
    const shown = [...Array(nBoxes()).keys()].filter(isVisible);
    if (!shown.length) return;
    const away = (i) => Math.hypot(frame.center[i][0], frame.center[i][1]);
    shown.sort((a, b) => away(a) - away(b));
    const at = shown.indexOf(state.picked);
    pick(shown[at < 0 ? (by > 0 ? 0 : shown.length - 1) : (at + by + shown.length) % shown.length]);
  }
  function fill(list, rows) {
    list.replaceChildren(...rows.flatMap(([term, text]) => {
      const dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = term;
      dd.textContent = text;
      return [dt, dd];
    }));
  }

  // ---------------------------------------------------------------- words around the stage

  function writeHead() {
    const title = frame.title || frame.frame, tail = ` · ${frame.frame}`;
    const isLong = title.endsWith(tail) && title.length > 40; // then the frame stands below its scene
    $("head").querySelector("h1").textContent = isLong ? title.slice(0, -tail.length) : title;
    $("token").hidden = !isLong;
    $("token").textContent = frame.frame;
    const nPoints = frame.arrays.points.length / 3, nPred = frame.pred.reduce((sum, value) => sum + value, 0);
    $("source").title = frame.source;
    const parts = [`${nPoints.toLocaleString("en")} points`, `${nBoxes() - nPred} truths`, `${nPred} predictions`];
    $("source").textContent = parts.join(" · ");
    const { number: count, errors } = summary();
    const unmatched = [OUTCOME.truth, OUTCOME.pred].filter((what) => count[what]);
    const shown = frame.matched ? [OUTCOME.tp, OUTCOME.fp, OUTCOME.missed] : unmatched;
    $("counts").replaceChildren(...shown.map((what) => {
      const one = document.createElement("div"), big = document.createElement("b"), small = document.createElement("span");
      big.textContent = String(count[what]);
      big.style.color = theme.outcomes[what];
      small.textContent = DATA.outcomes[what];
      one.append(big, small);
      return one;
    }));
    const known = frame.errorNames.map((name, e) => [name, errors[e], frame.errorUnits[e]]).filter((one) => one[1] !== null);
    $("errors").textContent = known.map(([name, value, unit]) => `${name} ${value.toFixed(2)} ${unit}`.trim().replaceAll(" ", "\u00a0")).join("\u00a0· ");
    $("errors").title = frame.threshold === null ? "" : `Means over the true positives; a match is within ${frame.threshold}`;
  }

  function writeKey() {
    $("key").hidden = !state.layers.has("legend");
    const rows = [];
    const shown = [...Array(nBoxes()).keys()].filter(isShown);
    if (state.boxes === "score") {
      for (let k = 0; k < 5; k++) {
        const at = 3 * Math.round((255 * k) / 4);
        rows.push([null, `score ${(k / 4).toFixed(2)}`, "", css([...ramp("score").slice(at, at + 3)].map((part) => part / 255))]);
      }
    } else if (state.boxes === "class") {
      frame.labels.forEach((name, k) => {
        const n = shown.filter((i) => frame.label[i] === k).length;
        if (n) rows.push([`class ${name}`, name, String(n), theme.classes[k % theme.classes.length]]);
      });
    } else {
      DATA.outcomes.forEach((name, k) => {
        const n = shown.filter((i) => outcome(i) === k).length;
        if (n) rows.push([`outcome ${k}`, name, String(n), theme.outcomes[k]]);
      });
    }
    $("rows").replaceChildren(...rows.map(([what, text, n, color]) => {
      const item = document.createElement("li"), button = document.createElement("button");
      const mark = document.createElement("i"), name = document.createElement("span"), count = document.createElement("b");
      button.type = "button";
      mark.style.background = color;
      name.textContent = text;
      count.textContent = n;
      button.append(mark, name, count);
      button.disabled = what === null;
      if (what !== null) {
        button.setAttribute("aria-pressed", String(!state.hidden.has(what)));
        button.title = "Show or hide";
        button.addEventListener("click", () => {
          if (!state.hidden.delete(what)) state.hidden.add(what);
          const index = [...$("rows").querySelectorAll("button")].indexOf(button);
          putBoxes(); writeKey(); draw();
          $("rows").querySelectorAll("button")[index]?.focus();
        });
      }
      item.append(button);
      return item;
    }));
    const mode = pointMode(), range = frame.ranges[mode];
    $("ramp").hidden = !range || !state.layers.has("points");
    if (range) {
      const strip = $("ramp").querySelector("canvas"), brush = strip.getContext("2d"), image = brush.createImageData(256, 1);
      const colors = ramp(mode);
      for (let i = 0; i < 256; i++) image.data.set([colors[3 * i], colors[3 * i + 1], colors[3 * i + 2], 255], 4 * i);
      brush.putImageData(image, 0, 0);
      const unit = { height: " m", distance: " m", time: " s" }[mode] ?? "";
      const say = (value) => (value === null ? "" : `${Number(value.toFixed(Math.abs(value) < 10 ? 1 : 0))}${unit}`);
      $("ramp").querySelectorAll("span").forEach((span, k) => { span.textContent = [say(range[0]), mode, say(range[1])][k]; });
    }
  }

  function writeMenu() {
    const modes = Object.keys(frame.ranges);
    choices($("points"), modes, pointMode());
    choices($("boxes"), ["outcome", "class", "score"], state.boxes);
    $("size").value = String(state.size ?? frame.pointSize);
    const hasPred = frame.pred.some(Boolean);
    $("scores").hidden = !hasPred;
    $("score").max = String(HIGHEST);
    $("score").value = String(leastNow());
    $("score").classList.toggle("off", state.score === null);
    $("least").textContent = state.score === null ? "auto" : state.score.toFixed(2);
    $("auto").checked = state.score === null;
    $("auto-row").hidden = !frame.matched;
    for (const [name] of LAYERS) $(`layer-${name}`).checked = state.layers.has(name);
    $("theme").textContent = nextTheme()[0].toUpperCase() + nextTheme().slice(1);
    writeFilm();
  }
  function writeFilm() {
    $("film").hidden = FRAMES.length < 2;
    document.body.classList.toggle("film", FRAMES.length > 1);
    $("frame").value = String(state.at);
    $("at").textContent = `${state.at + 1} / ${FRAMES.length}`;
  }
  function choices(select, names, chosen) {
    if ([...select.options].map((option) => option.value).join() !== names.join()) {
      select.replaceChildren(...names.map((name) => {
        const option = document.createElement("option");
        option.value = option.textContent = name;
        return option;
      }));
    }
    select.value = chosen;
  }

  function refresh({ points = false } = {}) {
    if (!frame) return;
    renderer.setClearColor(parseInt(theme.background.slice(1), 16));
    if (points) putPoints();
    putBoxes();
    if (state.picked >= 0) pick(state.picked);
    writeHead(); writeKey(); writeMenu();
    root.dataset.frame = frame.frame;
    draw();
  }

  // ---------------------------------------------------------------- frames

  let asked = 0;
  async function go(index, keepView = true) {
    const ticket = ++asked;
    let one;
    try {
      one = await unpack(index);
    } catch {
      if (ticket === asked) spoilt(index);
      return;
    }
    if (ticket !== asked) return; // another was asked for meanwhile
    $("spoilt").hidden = true;
    const first = !frame;
    state.at = index;
    frame = one;
    state.picked = -1;
    $("card").hidden = true;
    document.body.classList.remove("picked");
    refresh({ points: true });
    if (first || !keepView) stand(state.view);
    if (!first) {
      $("said").textContent = `${frame.title}, frame ${index + 1} of ${FRAMES.length}`;
      try { history.replaceState(null, "", `#frame=${encodeURIComponent(frame.frame)}`); } catch { /* not in a notebook */ }
    }
  }
  /** Say of a frame that its part of the file is damaged; what was shown stays, and one can go on from there. */
  function spoilt(index) {
    if (playing) play();
    const stays = frame ? ` Still shown: ${frame.title || frame.frame}.` : "";
    $("spoilt").textContent = `Frame ${index + 1}, ${FRAMES[index].frame}, cannot be unpacked: this file is damaged.${stays}`;
    $("spoilt").hidden = false;
    state.at = index;
    writeFilm();
    if (!frame) root.dataset.ready = "no";
  }
  const turn = (by) => go((state.at + by + FRAMES.length) % FRAMES.length);
  let playing = 0;
  async function play() {
    const ticket = playing ? 0 : Date.now();
    playing = ticket;
    $("play").setAttribute("aria-pressed", String(Boolean(ticket)));
    $("play").textContent = ticket ? "❚❚" : "▶";
    while (ticket && playing === ticket) {
      const before = performance.now();
      await turn(1);
      await new Promise((done) => setTimeout(done, Math.max(40, 500 - (performance.now() - before))));
    }
  }
  function named() {
    const text = location.hash.startsWith("#frame=") ? location.hash.slice(7) : null;
    if (text === null) return -1;
    let name = text;
    try { name = decodeURIComponent(text); } catch { /* a lone % */ }
    return FRAMES.findIndex((one) => one.frame === name);
  }
  addEventListener("hashchange", () => { const index = named(); if (index >= 0 && index !== state.at) go(index); });

  // ---------------------------------------------------------------- controls

  function toggle(name) {
    if (!state.layers.delete(name)) state.layers.add(name);
    refresh({ points: name === "points" });
  }
  function paintTheme(name) {
    root.dataset.theme = name;
    theme = DATA.themes[name];
    refresh({ points: true });
  }
  function least(value) {
    state.score = value;
    refresh();
  }
  const next = (select, set) => {
    const names = [...select.options].map((option) => option.value);
    set(names[(names.indexOf(select.value) + 1) % names.length]);
  };
  const setPoints = (mode) => { state.points = mode; refresh({ points: true }); };
  const setBoxes = (mode) => { state.boxes = mode; state.hidden.clear(); refresh(); };

  for (const [k, [name, text]] of LAYERS.entries()) {
    const label = document.createElement("label"), box = document.createElement("input"), hint = document.createElement("kbd");
    label.className = "check";
    box.type = "checkbox";
    box.id = `layer-${name}`;
    hint.textContent = String((k + 1) % 10);
    box.addEventListener("change", () => toggle(name));
    label.append(box, text, hint);
    $("layers").append(label);
  }
  fill($("help").querySelector("dl"), KEYS);
  for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => stand(button.dataset.view));
  $("points").addEventListener("change", (event) => setPoints(event.target.value));
  $("boxes").addEventListener("change", (event) => setBoxes(event.target.value));
  $("size").addEventListener("input", (event) => { state.size = Number(event.target.value); cloud.material.uniforms.size.value = state.size; draw(); });
  $("score").addEventListener("input", (event) => least(Number(event.target.value)));
  $("auto").addEventListener("change", (event) => least(event.target.checked ? null : leastNow()));
  $("theme").addEventListener("click", () => paintTheme(nextTheme()));
  $("ask").addEventListener("click", () => $("help").showModal());
  $("shot").addEventListener("click", save);
  $("near").addEventListener("click", () => approach(state.picked));
  $("other").addEventListener("click", () => { const i = frame.partner[state.picked]; if (i >= 0 && isVisible(i)) pick(i); });
  $("card").querySelector(".close").addEventListener("click", () => { pick(-1); canvas.focus(); });
  $("fold").addEventListener("click", () => fold(!$("menu").classList.contains("folded")));
  $("frame").max = String(FRAMES.length - 1);
  $("frame").addEventListener("input", (event) => go(Number(event.target.value)));
  $("before").addEventListener("click", () => turn(-1));
  $("after").addEventListener("click", () => turn(1));
  $("play").addEventListener("click", play);
  function fold(isFolded) {
    $("menu").classList.toggle("folded", isFolded);
    $("fold").setAttribute("aria-expanded", String(!isFolded));
  }
  fold(innerWidth <= 720 || innerHeight < 420);

  function save() {
    renderer.render(scene, camera); // a drawing buffer is only there until the browser shows it
    const sheet = document.createElement("canvas"), brush = sheet.getContext("2d");
    sheet.width = canvas.width;
    sheet.height = canvas.height;
    brush.drawImage(canvas, 0, 0);
    brush.drawImage(letters, 0, 0);
    sheet.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${frame.frame.replace(/[^\w.-]+/g, "_").slice(0, 80) || "frame"}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open || !frame) return;
    const tag = event.target.tagName, key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (tag === "SELECT") return;
    const isSlider = tag === "INPUT" && event.target.type === "range";
    if (key === " " && (tag === "BUTTON" || tag === "INPUT")) return;
    if (/^[0-9]$/.test(key)) toggle(LAYERS[(Number(key) + 9) % 10][0]);
    else if (key === "ArrowLeft" && !isSlider && FRAMES.length > 1) turn(-1);
    else if (key === "ArrowRight" && !isSlider && FRAMES.length > 1) turn(1);
    else if (key === " " && FRAMES.length > 1) play();
    else if (key === "+" || key === "=") least(stepped(0.05));
    else if (key === "-" || key === "−") least(stepped(-0.05));
    else if (key === "f") least(null);
    else if (key === "c") next($("points"), setPoints);
    else if (key === "b") next($("boxes"), setBoxes);
    else if (key === "a") { state.everyLabel = !state.everyLabel; draw(); }
    else if (key === "v") stand(VIEWS[(VIEWS.indexOf(state.view) + 1) % VIEWS.length]);
    else if (key === "x") stand(state.view);
    else if (key === "n") step(event.shiftKey ? -1 : 1);
    else if (key === "g") approach(state.picked);
    else if (key === "t") paintTheme(nextTheme());
    else if (key === "s") save();
    else if (key === "h" || key === "?") $("help").showModal();
    else if ((key === "u" || key === "Escape") && state.picked >= 0) pick(-1);
    else return;
    event.preventDefault();
  });

  function fit() {
    const width = innerWidth, height = innerHeight, dpr = Math.min(devicePixelRatio || 1, 2);
    renderer.setPixelRatio(dpr);
    renderer.setSize(width, height, false);
    letters.width = Math.round(width * dpr);
    letters.height = Math.round(height * dpr);
    cloud.material.uniforms.dpr.value = dpr;
    camera.aspect = width / Math.max(height, 1);
    camera.fov = camera.aspect < 0.8 ? 72 : 50; // a phone held upright would see only a slice
    camera.updateProjectionMatrix();
    draw();
  }
  addEventListener("resize", fit);
  canvas.addEventListener("webglcontextrestored", () => refresh({ points: true }));
  fit();
  const start = Math.max(named(), 0);
  go(start);

  // For whoever embeds or tests the page: where a box is on the screen, and what is shown.
  window.detmetrics = {
    place: (i) => project(...frame.center[i]),
    shown: () => [...Array(nBoxes()).keys()].filter(isVisible),
    outcomes: () => [...Array(nBoxes()).keys()].map(outcome),
    labelled: () => [...Array(nBoxes()).keys()].filter(isLabelled),
    picked: () => state.picked,
    under,
    counts: () => summary(),
    flies: () => flight !== null,
    camera: () => ({ position: camera.position.toArray(), target: controls.target.toArray() }),
    frame: () => frame.frame,
  };
})();
