(function () {
  "use strict";
  var tip = document.getElementById("tip");

  // Where a point of the picture lies in a panel, (0, 0) at the left below; null beside it.
  function within(panel, fx, fy) {
    var box = panel.box;
    var x = (fx - box[0]) / box[2], y = 1 - (fy - box[1]) / box[3];
    return x < 0 || x > 1 || y < 0 || y > 1 ? null : { x: x, y: y };
  }
  function number(value) { return value === null ? "absent" : value.toFixed(3); }
  function lines(parts) { return parts.filter(Boolean).join("\n"); }

  function cellAt(panel, at) {
    var column = panel.right.findIndex(function (edge) { return at.x <= edge; });
    if (column < 0) { column = panel.right.length - 1; }
    return [Math.min(panel.y.length - 1, Math.floor(at.y * panel.y.length)), column];
  }
  function ofCell(panel, at) {
    var cell = cellAt(panel, at);
    return lines([panel.name, panel.yName + " " + panel.y[cell[0]] + ", " + panel.xName + " " + panel.x[cell[1]],
      "test error " + number(panel.test[cell[0]][cell[1]]), "train error " + number(panel.train[cell[0]][cell[1]])]);
  }
  function ofCurves(panel, at, shape) {
    var best = null;
    panel.series.forEach(function (one) {
      one.at.forEach(function (x, i) {
        if (x === null || one.y[0][i] === null) { return; }
        var y = (one.y[0][i] - panel.low) / (panel.high - panel.low);
        var far = Math.hypot((x - at.x) * shape.width, (y - at.y) * shape.height);
        if (best === null || far < best.far) { best = { far: far, one: one, i: i }; }
      });
    });
    if (best === null) { return ""; }
    return lines([panel.name, lines([panel.byName + " " + best.one.name]) + ", " + panel.xName + " " + panel.x[best.i]].concat(
      panel.values.map(function (name, i) {
        var value = best.one.y[i][best.i];
        return i && value === null ? "" : name + " " + number(value);
      })));
  }
  function ofPoints(panel, at, shape) {
    var best = null;
    panel.points.forEach(function (point) {
      var far = Math.hypot((point[0] - at.x) * shape.width, (point[1] - at.y) * shape.height);
      if (best === null || far < best.far) { best = { far: far, text: point[2] }; }
    });
    return best === null ? "" : best.text;
  }
  function say(panel, at, shape) {
    if (panel.points) { return ofPoints(panel, at, shape); }
    return panel.series ? ofCurves(panel, at, shape) : ofCell(panel, at);
  }

  document.querySelectorAll("img[data-hover]").forEach(function (img) {
    var panels = JSON.parse(img.dataset.hover);
    function move(event) {
      var frame = img.getBoundingClientRect();
      var fx = (event.clientX - frame.left) / frame.width, fy = (event.clientY - frame.top) / frame.height;
      for (var i = 0; i < panels.length; i += 1) {
        var at = within(panels[i], fx, fy), box = panels[i].box;
        var text = at && say(panels[i], at, { width: box[2] * frame.width, height: box[3] * frame.height });
        if (text) {
          tip.textContent = text;
          tip.hidden = false;
          var left = Math.min(event.clientX + 14, document.documentElement.clientWidth - tip.offsetWidth - 6);
          var top = event.clientY + 18;
          if (top + tip.offsetHeight > window.innerHeight) { top = event.clientY - tip.offsetHeight - 12; }
          tip.style.left = Math.max(4, left) + "px";
          tip.style.top = Math.max(4, top) + "px";
          return;
        }
      }
      tip.hidden = true;
    }
    img.addEventListener("pointermove", move);
    img.addEventListener("pointerdown", move);
    img.addEventListener("pointerleave", function () { tip.hidden = true; });
  });
  window.addEventListener("scroll", function () { tip.hidden = true; }, { passive: true, capture: true });

  // The picture itself is what its links save: the page can be sent alone.
  function saver(name, href) {
    var link = document.createElement("a");
    link.textContent = name.split(".").pop().toUpperCase();
    link.download = name;
    link.href = href;
    return link;
  }
  function savePixels(img, link) {
    link.addEventListener("click", function (event) {
      if (link.href.indexOf("data:") === 0) { return; }
      event.preventDefault();
      var canvas = document.createElement("canvas");
      canvas.width = img.getAttribute("width") * 2;
      canvas.height = img.getAttribute("height") * 2;
      var whole = new Image();
      whole.onload = function () {
        canvas.getContext("2d").drawImage(whole, 0, 0, canvas.width, canvas.height);
        link.href = canvas.toDataURL("image/png");
        link.click();
      };
      whole.src = img.getAttribute("src");
    });
  }
  document.querySelectorAll(".files").forEach(function (files) {
    var img = files.closest("figure, section").querySelector("img");
    var source = img.getAttribute("src"), name = files.dataset.name;
    var isSvg = source.indexOf("data:image/svg") === 0;
    if (isSvg) { files.prepend(saver(name + ".svg", source)); }
    var pixels = saver(name + ".png", isSvg ? "#" : source);
    savePixels(img, pixels);
    files.prepend(pixels);
  });

  // The surface, and beside it the curves of one of its cells.
  var told = document.getElementById("curves");
  if (!told) { return; }
  var data = JSON.parse(told.textContent);
  var img = document.querySelector("#surface img"), canvas = document.querySelector("#surface .canvas");
  var panels = JSON.parse(img.dataset.hover);
  var svg = document.getElementById("cell-curves");
  var WIDTH = 360, HEIGHT = 300, LEFT = 40, RIGHT = 10, TOP = 8, BELOW = 40;

  function unpacked(text) {
    var bytes = atob(text), values = new Array(bytes.length / 2);
    for (var i = 0; i < values.length; i += 1) {
      var whole = bytes.charCodeAt(2 * i) + 256 * bytes.charCodeAt(2 * i + 1);
      values[i] = whole === data.absent ? null : whole / data.scale;
    }
    return values;
  }
  data.panels.forEach(function (panel) {
    panel.test = unpacked(panel.test);
    panel.train = unpacked(panel.train);
  });
  var highest = 0;
  data.panels.forEach(function (panel) {
    panel.test.concat(panel.train).forEach(function (value) { highest = Math.max(highest, value || 0); });
  });
  highest = Math.max(0.1, Math.ceil(highest * 10 - 1e-9) / 10);

  // (seeds, epochs) of one cell.
  function curvesOf(values, panel, row, column) {
    var num = data.panels[panel].epochs.length, seeds = data.seeds.length;
    var first = ((row * data.panels[panel].frozen.length + column) * seeds) * num;
    return data.seeds.map(function (_, seed) { return values.slice(first + seed * num, first + (seed + 1) * num); });
  }
  function known(value) { return value !== null; }
  function meanOf(curves) {
    var alive = curves.filter(function (curve) { return curve.some(known); });
    return alive.length ? alive[0].map(function (_, i) {
      var all = alive.map(function (curve) { return curve[i]; });
      return all.every(known) ? all.reduce(function (a, b) { return a + b; }, 0) / all.length : null;
    }) : [];
  }
  function add(kind, attributes, text) {
    var element = document.createElementNS(svg.namespaceURI, kind);
    Object.keys(attributes).forEach(function (name) { element.setAttribute(name, attributes[name]); });
    if (text !== undefined) { element.textContent = text; }
    svg.append(element);
  }
  function draw(panel, row, column) {
    var epochs = data.panels[panel].epochs;
    var test = curvesOf(data.panels[panel].test, panel, row, column);
    var train = curvesOf(data.panels[panel].train, panel, row, column);
    var there = epochs.map(function (_, i) { return test.some(function (curve) { return known(curve[i]); }); });
    var positive = epochs.filter(function (epoch, i) { return epoch > 0 && there[i]; });
    var low = Math.log(positive[0] || 1), high = Math.log(positive[positive.length - 1] || 2);
    if (high <= low) { high = low + 1; }
    var zero = there[0] && epochs[0] === 0 ? 0.08 : 0;
    function x(epoch) {
      var at = epoch > 0 ? zero + (1 - zero) * (Math.log(epoch) - low) / (high - low) : 0;
      return LEFT + at * (WIDTH - LEFT - RIGHT);
    }
    function y(value) { return HEIGHT - BELOW - value / highest * (HEIGHT - BELOW - TOP); }
    svg.replaceChildren();
    for (var tick = 0; tick <= highest + 1e-9; tick += highest > 0.5 ? 0.2 : 0.1) {
      add("line", { "class": "guide", x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick) });
      add("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, tick.toFixed(1));
    }
    add("line", { "class": "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(0), y2: y(0) });
    var ticks = zero ? [0] : [];
    for (var power = Math.floor(low / Math.LN10); Math.pow(10, power) <= Math.exp(high) * 1.001; power += 1) {
      (high - low < 5 ? [1, 2, 5] : [1]).forEach(function (times) {
        var epoch = times * Math.pow(10, power);
        if (epoch >= Math.exp(low) * 0.999 && epoch <= Math.exp(high) * 1.001) { ticks.push(epoch); }
      });
    }
    ticks.forEach(function (epoch) {
      add("line", { "class": "axis", x1: x(epoch), x2: x(epoch), y1: y(0), y2: y(0) + 4 });
      add("text", { x: x(epoch), y: y(0) + 17, "text-anchor": "middle" }, Number(epoch.toPrecision(6)).toLocaleString("en-GB"));
    });
    add("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "epoch (log scale)");
    function line(curve, kind) {
      var points = curve.map(function (value, i) { return known(value) ? x(epochs[i]).toFixed(1) + "," + y(value).toFixed(1) : ""; });
      add("polyline", { "class": kind, points: points.filter(Boolean).join(" ") });
    }
    train.forEach(function (curve) { line(curve, "train one"); });
    test.forEach(function (curve) { line(curve, "test one"); });
    line(meanOf(train), "train mean");
    line(meanOf(test), "test mean");
  }
  function key(kind, text) {
    var span = document.createElement("span");
    span.className = "key " + kind;
    span.textContent = text;
    return span;
  }

  var chosen = document.createElement("div"), place = data.start;
  chosen.className = "chosen";
  canvas.append(chosen);
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "group");
  canvas.setAttribute("aria-label", "The surface: arrow keys choose the cell whose curves are drawn");
  function show() {
    var panel = panels[place[0]], box = panel.box, row = place[1], column = place[2];
    var left = column ? panel.right[column - 1] : 0, rows = panel.y.length;
    chosen.style.left = 100 * (box[0] + left * box[2]) + "%";
    chosen.style.width = 100 * (panel.right[column] - left) * box[2] + "%";
    chosen.style.top = 100 * (box[1] + (1 - (row + 1) / rows) * box[3]) + "%";
    chosen.style.height = 100 * box[3] / rows + "%";
    draw(place[0], row, column);
    var test = curvesOf(data.panels[place[0]].test, place[0], row, column);
    var seeds = test.filter(function (curve) { return curve.some(known); }).length;
    document.getElementById("cell-name").textContent = panel.xName + " " + panel.x[column] + ", " + panel.y[row] + " " + panel.yName +
      (panels.length > 1 ? ", " + panel.name : "");
    var text = document.getElementById("cell-text");
    text.replaceChildren(key("test", "Test error"), " (after the last epoch " + number(panel.test[row][column]) + ") and ",
      key("train", "train error"), " (" + number(panel.train[row][column]) + ", dashed) over the epochs. " +
      (seeds > 1 ? "Bold: mean over " + seeds + " seeds; thin: each seed." : seeds + " seed."));
  }
  function point(event) {
    var frame = img.getBoundingClientRect();
    var fx = (event.clientX - frame.left) / frame.width, fy = (event.clientY - frame.top) / frame.height;
    panels.forEach(function (panel, i) {
      var at = within(panel, fx, fy);
      if (at) { place = [i].concat(cellAt(panel, at)); show(); }
    });
  }
  img.addEventListener("pointermove", point);
  img.addEventListener("pointerdown", point);
  canvas.addEventListener("keydown", function (event) {
    var step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0] }[event.key];
    if (!step) { return; }
    event.preventDefault();
    var panel = place[0], row = place[1] + step[0], column = place[2] + step[1];
    var rows = data.sizes.length, columns = data.panels[panel].frozen.length;
    // Beyond the end of a panel comes the next one.
    if (column < 0 || row < 0) { panel -= 1; } else if (column >= columns || row >= rows) { panel += 1; }
    if (panel < 0 || panel >= panels.length) { return; }
    if (panel !== place[0]) {
      columns = data.panels[panel].frozen.length;
      row = step[0] ? (step[0] > 0 ? 0 : rows - 1) : row;
      column = step[1] ? (step[1] > 0 ? 0 : columns - 1) : Math.min(column, columns - 1);
    }
    place = [panel, row, column];
    show();
    chosen.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  show();
}());
