/* Runs inside a page under test (put at its end by tests/e2e/html_browser.sh) and tells the frame around it
   what is wrong. */
(function () {
  var wrong = [];
  window.addEventListener('error', function (e) { wrong.push('error: ' + e.message); });

  function rgb(c) { var m = c.match(/[\d.]+/g); return m ? m.slice(0, 4).map(Number) : [0, 0, 0, 0]; }
  function luminance(c) {
    var l = c.slice(0, 3).map(function (v) { v /= 255; return v <= 0.03928 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4); });
    return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2];
  }
  function contrast(a, b) { a = luminance(a); b = luminance(b); return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }

  /* The color behind an element: of the chart's block where it stands on one, else of the nearest background. */
  function behind(e) {
    var own = getComputedStyle(e).getPropertyValue('--c').trim();
    if (own && e.closest('.over, svg')) {
      if (own[0] === '#') return [1, 3, 5].map(function (i) { return parseInt(own.slice(i, i + 2), 16); });
    }
    for (; e; e = e.parentElement) {
      var c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  }
  function texts() {
    var walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), out = [];
    for (var n; (n = walk.nextNode());) {
      var e = n.parentElement;
      if (!n.data.trim() || e.closest('script, style, title, desc, .skip')) continue;
      if (!e.getClientRects().length) continue;
      out.push(e);
    }
    return out;
  }
  function checkContrast(theme) {
    texts().forEach(function (e) {
      var s = getComputedStyle(e), ink = rgb(e.closest('svg') ? s.fill : s.color), c = contrast(ink, behind(e));
      if (c < 4.5) wrong.push(theme + ': contrast ' + c.toFixed(2) + ' of "' + e.textContent.trim().slice(0, 30) + '"');
    });
  }
  function checkWidth() {
    var w = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    if (w > 1) wrong.push('the page is ' + w + ' px wider than its window');
  }
  function checkRequests() {
    performance.getEntriesByType('resource').forEach(function (e) { wrong.push('asked for ' + e.name); });
  }
  function checkNames() {
    if (document.scripts.length !== 4) wrong.push(document.scripts.length + ' scripts');
    Array.prototype.forEach.call(document.querySelectorAll('svg[role=img]'), function (s) {
      if (!s.querySelector('title') || !s.querySelector('desc')) wrong.push('a picture without a name');
    });
    Array.prototype.forEach.call(document.querySelectorAll('figure, table'), function (e) {
      if (!e.getAttribute('aria-label') && !e.querySelector('figcaption, caption')) wrong.push('a ' + e.tagName + ' without a name');
      if (e.tagName === 'TABLE' && !e.querySelector('th')) wrong.push('a table without headers');
    });
    Array.prototype.reduce.call(document.querySelectorAll('h1, h2, h3, h4'), function (last, e) {
      var level = Number(e.getAttribute('aria-level') || e.tagName[1]);
      if (level > last + 1) wrong.push('heading "' + e.textContent + '" leaves out a level');
      return level;
    }, 0);
    Array.prototype.forEach.call(document.querySelectorAll('script[type="application/json"]'), function (s) { JSON.parse(s.textContent); });
  }
  function checkSort() {
    var table = document.querySelector('table.sort'), head = table && table.querySelector('thead th:nth-child(2) button');
    if (!head) return;
    function column() { return Array.prototype.map.call(table.tBodies[0].rows, function (r) { return Number(r.cells[1].getAttribute('data-v')); }); }
    head.click();
    var down = column();
    head.click();
    var up = column();
    if (!down.every(function (v, i) { return !i || down[i - 1] >= v; })) wrong.push('does not sort down');
    if (!up.every(function (v, i) { return !i || up[i - 1] <= v; })) wrong.push('does not sort up');
  }
  function checkPictures() {
    var heat = document.querySelector('.heat svg'), block = document.querySelector('svg.icicle g:nth-child(4)');
    if (heat) {
      heat.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight' }));
      if (!/layer \d+, expert 1:/.test(document.querySelector('.read').textContent)) wrong.push('the heatmap tells nothing');
    }
    if (block) {
      block.dispatchEvent(new MouseEvent('click'));
      if (Math.abs(block.querySelector('rect').getAttribute('width') - 1000) > 1) wrong.push('the icicle does not widen');
    }
  }
  try {
    checkNames();
    ['light', 'dark'].forEach(function (theme) {
      document.getElementById('theme-' + theme).click();
      checkContrast(theme);
      checkWidth();
    });
    checkSort();
    checkPictures();
    checkRequests();
  } catch (e) { wrong.push(String(e)); }
  window.parent.postMessage(wrong.length ? wrong.slice(0, 6).join('; ') : 'ok', '*');
})();
