(function () {
  "use strict";
  var tip = document.getElementById("tip");

  // The position of a point of the picture in a panel, (0, 0) at the lower left; null outside of it.
  function within(panel, fx, fy) {
    var box = panel.box;
    var x = (fx - box[0]) / box[2], y = 1 - (fy - box[1]) / box[3];
    return x < 0 || x > 1 || y < 0 || y > 1 ? null : { x: x, y: y };
  }
  function number(value) { return value === null ? "absent" : value.toFixed(3); }
  function called(name, value) { return (name + " " + value).trim(); }
  function lines(parts) { return parts.filter(Boolean).join("\n"); }

  function cellAt(panel, at) {
    var column = panel.right.findIndex(function (edge) { return at.x <= edge; });
    if (column < 0) { column = panel.right.length - 1; }
    return [Math.min(panel.y.length - 1, Math.floor(at.y * panel.y.length)), column];
  }
  function ofCell(panel, at) {
    var cell = cellAt(panel, at);
    return lines([panel.name, called(panel.yName, panel.y[cell[0]]), called(panel.xName, panel.x[cell[1]]),
      "test error " + number(panel.test[cell[0]][cell[1]]), "train error " + number(panel.train[cell[0]][cell[1]])]);
  }
  // The point of a panel's curves that is nearest to `at`: the number of its series, and its place in it.
  function nearest(panel, at, shape) {
    var best = null;
    panel.series.forEach(function (one, number) {
      one.at.forEach(function (x, i) {
        if (x === null || one.y[0][i] === null) { return; }
        var y = (one.y[0][i] - panel.low) / (panel.high - panel.low);
        var far = Math.hypot((x - at.x) * shape.width, (y - at.y) * shape.height);
        if (best === null || far < best.far) { best = { far: far, one: one, number: number, i: i }; }
      });
    });
    return best;
  }
  function ofCurves(panel, at, shape) {
    var best = nearest(panel, at, shape);
    if (best === null) { return ""; }
    return lines([panel.name, called(panel.byName, best.one.name), called(panel.xName, panel.x[best.i])].concat(
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

  // The links save the picture from this page, so that the page can be sent alone.
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

  // The first picture, and beside it the curves over the epochs of one of its points.
  var packed = document.getElementById("curves");
  if (!packed) { return; }
  var data = JSON.parse(packed.textContent);
  var img = document.querySelector("#first img"), canvas = document.querySelector("#first .canvas");
  var drawn = JSON.parse(img.dataset.hover);
  // Each panel of curves has one with the train error beneath it.
  var panels = drawn.filter(function (_, i) { return i % data.panelsOfEach === 0; });
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
  var all = [].concat.apply([], data.panels);
  all.forEach(function (line) {
    line.test = unpacked(line.test);
    line.train = unpacked(line.train);
  });
  var highest = 0;
  all.forEach(function (line) {
    line.test.concat(line.train).forEach(function (value) { highest = Math.max(highest, value || 0); });
  });
  highest = Math.max(0.1, Math.ceil(highest * 10 - 1e-9) / 10);

  // The stored line of a series: a series without any value is not drawn.
  function lineOf(panel, series) {
    var name = panels[panel].series[series].name;
    return data.panels[panel].find(function (line) { return line.name === name; });
  }
  // (seeds, epochs) of one point.
  function curvesOf(values, num, column) {
    return data.seeds.map(function (_, seed) {
      var first = (column * data.seeds.length + seed) * num;
      return values.slice(first, first + num);
    });
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
  function draw(line, column) {
    var epochs = line.epochs;
    var test = curvesOf(line.test, epochs.length, column), train = curvesOf(line.train, epochs.length, column);
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
    function path(curve, kind) {
      var points = curve.map(function (value, i) { return known(value) ? x(epochs[i]).toFixed(1) + "," + y(value).toFixed(1) : ""; });
      add("polyline", { "class": kind, points: points.filter(Boolean).join(" ") });
    }
    train.forEach(function (curve) { path(curve, "train one"); });
    test.forEach(function (curve) { path(curve, "test one"); });
    path(meanOf(train), "train mean");
    path(meanOf(test), "test mean");
  }
  function key(kind, text) {
    var span = document.createElement("span");
    span.className = "key " + kind;
    span.textContent = text;
    return span;
  }

  var chosen = document.createElement("div"), place = data.start.slice();
  chosen.className = "chosen";
  canvas.append(chosen);
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "group");
  canvas.setAttribute("aria-label", "The curves: arrow keys choose the point whose epochs are drawn");
  // The number of the series that is stored as this line of the panel.
  place[1] = Math.max(0, panels[place[0]].series.findIndex(function (one) {
    return one.name === data.panels[place[0]][place[1]].name;
  }));
  function isThere(panel, series, column) {
    var one = panels[panel].series[series];
    return one.at[column] !== null && one.at[column] !== undefined && one.y[0][column] !== null;
  }
  function show() {
    var panel = panels[place[0]], box = panel.box, one = panel.series[place[1]], column = place[2];
    var up = (one.y[0][column] - panel.low) / (panel.high - panel.low);
    chosen.style.left = 100 * (box[0] + one.at[column] * box[2]) + "%";
    chosen.style.top = 100 * (box[1] + (1 - up) * box[3]) + "%";
    var line = lineOf(place[0], place[1]);
    draw(line, column);
    var seeds = curvesOf(line.test, line.epochs.length, column).filter(function (curve) { return curve.some(known); }).length;
    document.getElementById("cell-name").textContent = panel.x[column] + ", " + one.name + (panel.name ? ", " + panel.name : "");
    var text = document.getElementById("cell-text");
    text.replaceChildren(key("test", "Test error"), " (after the last epoch " + number(one.y[0][column]) + ") and ",
      key("train", "train error"), " (" + number(one.y[1][column]) + ", dashed) over the epochs. " +
      (seeds > 1 ? "Bold: mean over " + seeds + " seeds; thin: each seed." : seeds + " seed."));
  }
  function point(event) {
    var frame = img.getBoundingClientRect();
    var fx = (event.clientX - frame.left) / frame.width, fy = (event.clientY - frame.top) / frame.height;
    drawn.forEach(function (panel, i) {
      var at = within(panel, fx, fy), box = panel.box;
      var best = at && nearest(panel, at, { width: box[2] * frame.width, height: box[3] * frame.height });
      if (best) { place = [Math.floor(i / data.panelsOfEach), best.number, best.i]; show(); }
    });
  }
  img.addEventListener("pointermove", point);
  img.addEventListener("pointerdown", point);
  // The next point in this direction, in this panel or the next one; null without one.
  function next(step) {
    var panel = place[0], series = place[1] + step[0], column = place[2] + step[1];
    while (panel >= 0 && panel < panels.length) {
      while (series >= 0 && series < panels[panel].series.length && column >= 0 && column < panels[panel].x.length) {
        if (isThere(panel, series, column)) { return [panel, series, column]; }
        if (step[1]) { column += step[1]; } else { series += step[0]; }
      }
      panel += step[0] + step[1];
      if (panel < 0 || panel >= panels.length) { return null; }
      if (step[1]) { column = step[1] > 0 ? 0 : panels[panel].x.length - 1; series = Math.min(place[1], panels[panel].series.length - 1); }
      else { series = step[0] > 0 ? 0 : panels[panel].series.length - 1; }
    }
    return null;
  }
  canvas.addEventListener("keydown", function (event) {
    var step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) { return; }
    event.preventDefault();
    place = next(step) || place;
    show();
    chosen.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  show();
}());
