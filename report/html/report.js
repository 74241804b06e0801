'use strict';
(function () {
  var doc = document, all = function (q, in_) { return Array.prototype.slice.call((in_ || doc).querySelectorAll(q)); };

  /* Theme: works by CSS alone; only remembering it needs a script. A file may have no storage. */
  function store(v) { try { return v ? localStorage.setItem('moeprof-theme', v) : localStorage.getItem('moeprof-theme'); } catch (e) { return null; } }
  all('.theme input').forEach(function (i) {
    i.checked = i.value === store() || i.checked;
    i.addEventListener('change', function () { store(i.value); });
  });

  /* Tables: a button in each head; rows by data-v, else by text. Unknown (no data-v value) sorts last. */
  function sort(table, column, up) {
    var body = table.tBodies[0], key = function (tr) {
      var td = tr.cells[column], v = td.getAttribute('data-v');
      return v === null ? td.textContent : v === '' ? null : Number(v);
    };
    Array.prototype.slice.call(body.rows).map(function (tr) { return [key(tr), tr]; }).sort(function (a, b) {
      if (a[0] === null || b[0] === null) return (a[0] === null) - (b[0] === null);
      return (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0) * (up ? 1 : -1);
    }).forEach(function (r) { body.appendChild(r[1]); });
  }
  all('table.sort').forEach(function (table) {
    all('thead th', table).forEach(function (th, column) {
      var b = doc.createElement('button');
      b.type = 'button';
      while (th.firstChild) b.appendChild(th.firstChild);
      th.appendChild(b);
      b.addEventListener('click', function () {
        var up = th.getAttribute('aria-sort') === 'descending' || (!th.getAttribute('aria-sort') && !th.classList.contains('n'));
        all('th', table).forEach(function (o) { o.removeAttribute('aria-sort'); });
        th.setAttribute('aria-sort', up ? 'ascending' : 'descending');
        sort(table, column, up);
      });
    });
  });

  function figure(v, units) {
    for (var i = 0; i < units.length - 1 && Math.abs(v) < units[i][0]; i++);
    v /= units[i][0];
    return (v >= 100 ? v.toFixed(0) : v >= 10 ? v.toFixed(1) : v.toFixed(2)) + ' ' + units[i][1];
  }
  function time(ns) { return ns === null ? '–' : figure(ns, [[1e9, 's'], [1e6, 'ms'], [1e3, 'µs'], [1, 'ns']]); }

  /* Heatmaps: what is under the pointer, or where the arrow keys are. */
  var data = doc.getElementById('moeprof-experts');
  data = data ? JSON.parse(data.textContent) : [];
  all('.heat').forEach(function (heat) {
    var rows = data[Number(heat.getAttribute('data-page'))].layers, x = 0, y = 0, svg = heat.querySelector('svg'),
      cols = Number(heat.getAttribute('data-columns')), read = heat.querySelector('.read'), boxes = all('.mark', heat);
    function show() {
      var r = rows[y], t = r.tokens[x];
      if (t === undefined) return;
      boxes.forEach(function (b) {
        b.setAttribute('x', x);
        b.setAttribute('y', y);
        b.style.display = 'block';
      });
      read.textContent = 'layer ' + r.layer + ', expert ' + x + ': ' + (t === null ? '–' : Math.round(t).toLocaleString('en').replace(/,/g, ' ')) +
        ' tokens a step, ' + (r.basis === 'apportioned' && r.ns[x] !== null ? '~' : '') + time(r.ns[x]) + ' in its kernels' + (t === 0 ? ' (idle)' : '');
    }
    svg.addEventListener('pointermove', function (e) {
      var b = svg.getBoundingClientRect();
      x = Math.min(cols - 1, Math.max(0, Math.floor((e.clientX - b.left) / b.width * cols)));
      y = Math.min(rows.length - 1, Math.max(0, Math.floor((e.clientY - b.top) / b.height * rows.length)));
      show();
    });
    svg.setAttribute('tabindex', '0');
    svg.addEventListener('keydown', function (e) {
      var d = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
      if (!d) return;
      e.preventDefault();
      x = Math.min(cols - 1, Math.max(0, x + d[0]));
      y = Math.min(rows.length - 1, Math.max(0, y + d[1]));
      show();
    });
    svg.addEventListener('focus', show);
  });

  /* Icicles: a block fills the width when chosen; the whole step does so again when the top one is. */
  all('svg.icicle').forEach(function (svg) {
    svg.setAttribute('role', 'group');
    var width = svg.viewBox.baseVal.width, blocks = all('g', svg).map(function (g) {
      var r = g.querySelector('rect');
      return { g: g, r: r, t: g.querySelector('text'), label: g.getAttribute('data-l') || '', x: +r.getAttribute('x'), w: +r.getAttribute('width'), y: +r.getAttribute('y') };
    });
    function zoom(to) {
      var k = width / to.w;
      blocks.forEach(function (b) {
        var x0 = Math.max(0, (b.x - to.x) * k), x1 = Math.min(width, (b.x + b.w - to.x) * k), room = Math.floor((x1 - x0 - 6) / 6.4);
        b.g.style.display = x1 - x0 > 0.2 ? '' : 'none';
        b.r.setAttribute('x', x0);
        b.r.setAttribute('width', Math.max(0, x1 - x0));
        if (!b.t && b.label && room >= b.label.length) {
          b.t = doc.createElementNS('http://www.w3.org/2000/svg', 'text');
          b.t.setAttribute('class', b.r.getAttribute('class').replace(/edge|odd/, '') + ' on');
          b.t.setAttribute('y', b.y + 15);
          b.t.textContent = b.label;
          b.g.appendChild(b.t);
        }
        if (!b.t) return;
        b.t.setAttribute('x', x0 + 4);
        b.t.style.display = room >= b.t.textContent.length ? '' : 'none';
      });
    }
    blocks.forEach(function (b) {
      if (b.w > width / 250) {
        b.g.setAttribute('tabindex', '0');
        b.g.setAttribute('role', 'button');
        b.g.setAttribute('aria-label', b.g.querySelector('title').textContent);
      }
      b.g.addEventListener('click', function () { zoom(b); });
      b.g.addEventListener('keydown', function (e) {
        if (e.key === 'Enter' || e.key === ' ') { e.preventDefault(); zoom(b); }
        if (e.key === 'Escape') zoom(blocks[0]);
      });
    });
  });
})();
