"""How a page looks, and the few lines of script that it has: it is whole without them."""

CSS = """\
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;padding:1.25rem clamp(1rem,3vw,2.5rem) 4rem;max-width:1560px;background:var(--paper);\
color:var(--ink);font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:clamp(1.45rem,1.1rem + 1.6vw,2.1rem);line-height:1.2;margin:.1em 0 .5em;overflow-wrap:anywhere}
h2{font-size:1.3rem;line-height:1.25;margin:0 0 .6em}
h3{font-size:1.02rem;margin:1.4em 0 .5em}
section{margin-top:2.2rem;padding-top:1.4rem;border-top:1px solid var(--rule)}
p,ul,dl{margin:0 0 .9em}
p,li{max-width:76ch;overflow-wrap:anywhere}
small,.kicker,figcaption,caption{color:var(--quiet);font-size:.875rem}
.kicker{margin:0;letter-spacing:.02em}
a{color:var(--link);text-underline-offset:.15em}
:focus-visible{outline:3px solid var(--link);outline-offset:2px}
main:focus{outline:none}
.skip{position:absolute;left:-99rem}
.skip:focus{left:1rem;top:.5rem;padding:.5rem .8rem;background:var(--paper);z-index:2}
nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;list-style:none;padding:0;font-size:.92rem}
nav a{display:inline-block;padding:.25rem 0}
.lead>p:first-child{font-size:1.14rem}
.fine strong{color:var(--good)}
.warn{border-left:4px solid var(--warn);background:var(--warn-panel);padding:.8rem 1rem .2rem;margin:0 0 1.1rem}
.warn strong{color:var(--warn)}
.warn ul,.lead ul{padding-left:1.2rem}
code,pre{font:.9em/1.45 ui-monospace,SFMono-Regular,Consolas,"Liberation Mono",monospace}
code{overflow-wrap:anywhere}
.word{display:inline-block;max-width:100%}
pre{margin:0 0 1rem;padding:.8rem 1rem;background:var(--panel);border:1px solid var(--rule);border-radius:6px;\
white-space:pre-wrap;overflow-wrap:anywhere}
.copy{margin:0 .6rem 1rem 0;font:inherit;font-size:.9rem;padding:.35rem .8rem;color:var(--ink);background:var(--panel);\
border:1px solid var(--quiet);border-radius:6px;cursor:pointer}
dl div{min-width:0}
dd{margin:0;overflow-wrap:anywhere}
dd small{display:block}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,13.5rem),1fr));gap:.8rem}
.tiles div{background:var(--panel);border-radius:8px;padding:.75rem .95rem}
.tiles dt{color:var(--quiet);font-size:.875rem}
.tiles dd{font-size:1.5rem;line-height:1.3;font-variant-numeric:tabular-nums}
.tiles small{font-size:.82rem;line-height:1.4;margin-top:.2rem}
.facts div{display:grid;grid-template-columns:minmax(8rem,15rem) 1fr;gap:0 1rem;padding:.3rem 0;\
border-bottom:1px solid var(--rule)}
.facts dt{color:var(--quiet)}
@media (max-width:34rem){
.tiles{grid-template-columns:repeat(auto-fit,minmax(min(100%,8.6rem),1fr))}
.facts div{grid-template-columns:1fr}
}
.box{overflow-x:auto;max-width:100%;margin:0 0 1rem}
td code{font-size:.82rem}
.tall .box{max-height:34rem;overflow-y:auto}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:0 0 .4rem;caption-side:top}
caption span{display:inline-block;position:sticky;left:0;max-width:min(76ch,calc(100vw - 3.2rem))}
th,td{padding:.32rem .7rem;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap;vertical-align:top}
th{font-weight:600}
thead th{border-bottom:2px solid var(--quiet);vertical-align:bottom;white-space:normal;min-width:4.2rem}
th[scope=row],td.text,th.text,th:first-child{text-align:left}
td.text{white-space:normal;min-width:11rem}
td.barred{text-align:left;min-width:8.5rem}
.bar{display:block;height:.45rem;width:var(--w);min-width:1px;background:var(--s2);border-radius:2px;\
margin:.2rem 0 .15rem}
.confusion td,.confusion thead th{text-align:center;min-width:2.6rem;padding:.35rem .4rem}
.confusion th{max-width:11rem;overflow:hidden;text-overflow:ellipsis}
.confusion thead th+th{writing-mode:vertical-rl;white-space:nowrap;min-width:0;max-width:none;max-height:11rem;\
text-align:left;transform:rotate(180deg)}
.confusion td{background:rgb(var(--shade)/calc(var(--n,0)*var(--densest)))}
.confusion td.own{outline:1.5px solid var(--quiet);outline-offset:-2px}
figure{margin:0 0 1rem;min-width:0}
figcaption{margin:0 0 .3rem;overflow-wrap:anywhere}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr));gap:1rem 1.6rem}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,18.5rem),1fr));gap:.2rem 1.4rem}
.edges{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,15.5rem),1fr));gap:.5rem 1.1rem}
.edges figcaption{margin:0;color:var(--ink)}
svg{display:block;max-width:100%;height:auto}
.box>svg{max-width:none}
svg text{fill:var(--ink);font:11px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
svg .tick{fill:var(--quiet)}
.grid{stroke:var(--rule);stroke-width:1}
.axis{stroke:var(--quiet);stroke-width:1}
.line{fill:none;stroke:var(--c);stroke-width:2;stroke-dasharray:var(--d,none);stroke-linejoin:round}
.line.near{stroke-width:4}
.dot{fill:var(--c);stroke:var(--paper);stroke-width:1}
.mark{stroke:var(--warn);stroke-width:1.5}
.node{fill:var(--panel);stroke:var(--quiet);stroke-width:1.5}
.out{fill:var(--ink)}
svg .on{fill:var(--paper)}
.loose .node{stroke-dasharray:3 3}
.head{fill:var(--c)}
.pill{fill:var(--paper);stroke:var(--c);stroke-width:1.5;stroke-dasharray:var(--d,none)}
.join{fill:none;stroke:var(--quiet);stroke-width:1.3}
.join-head{fill:var(--quiet)}
.legend{display:flex;flex-wrap:wrap;gap:.25rem 1.2rem;list-style:none;padding:0;font-size:.92rem}
.legend li{display:flex;align-items:center;gap:.45rem}
.swatch{flex:none}
.cells{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,34rem),1fr));gap:1rem 2rem}
.named{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.5rem,1fr));gap:.4rem 1rem}
.named .photos{margin:.2rem 0}
.photos{display:flex;flex-wrap:wrap;gap:.4rem;margin:.2rem 0 1rem}
.photos img{width:64px;height:64px;object-fit:contain;background:var(--panel)}
.pixels img{image-rendering:pixelated}
details{margin:.4rem 0 1rem}
summary{cursor:pointer;color:var(--link);padding:.2rem 0}
#tip{position:fixed;z-index:3;pointer-events:none;white-space:pre;background:var(--paper);color:var(--ink);\
border:1px solid var(--quiet);border-radius:6px;padding:.4rem .6rem;font-size:.82rem;line-height:1.4;\
font-variant-numeric:tabular-nums;max-width:20rem;overflow:hidden}
#tip>*{display:block}
@media print{
body{max-width:none;padding:0;font-size:10pt}
nav,.skip,.copy,#tip{display:none}
.box,.tall .box{overflow:visible;max-height:none}
.box>svg{max-width:100%}
section{break-inside:auto}
h2,h3,figcaption{break-after:avoid}
.charts{grid-template-columns:1fr 1fr}
.edges{grid-template-columns:repeat(3,1fr)}
@page{margin:15mm}
figure,tr,.warn,.tiles div{break-inside:avoid}
details::details-content{content-visibility:visible;height:auto}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""

# Copies a command; opens all for the printer; says, beside the pointer or a finger, what the lines of a chart stand at,
# the one that is pointed at in bold. The points of a line are read off its path, their values off the chart's scale.
SCRIPT = """\
'use strict';
for (const button of document.querySelectorAll('button.copy')) {
  button.hidden = false;
  button.addEventListener('click', () => {
    const pre = document.getElementById(button.dataset.of), said = button.nextElementSibling;
    const select = () => { getSelection().selectAllChildren(pre); said.textContent = 'selected: press Ctrl+C'; };
    if (!navigator.clipboard) return select();
    navigator.clipboard.writeText(pre.textContent).then(() => { said.textContent = 'copied'; }, select);
  });
}
addEventListener('beforeprint', () => document.querySelectorAll('details').forEach(d => { d.open = true; }));
const tip = document.getElementById('tip');
let near = null;
const mark = path => { near?.classList.remove('near'); near = path; near?.classList.add('near'); };
const hide = () => { tip.hidden = true; mark(null); };
addEventListener('pointerdown', e => { if (!e.target.closest?.('svg[data-scale]')) hide(); });
for (const svg of document.querySelectorAll('svg[data-scale]')) {
  const [left, right, x0, x1, top, bottom, y1, y0, digits] = JSON.parse(svg.dataset.scale);
  for (const title of svg.querySelectorAll('path[data-n]>title')) title.remove();  // one tip is enough
  let lines = null;
  const tell = e => {
    lines ??= [...svg.querySelectorAll('path[data-n]')].map(path => ({path, name: path.dataset.n,
      points: (path.getAttribute('d').match(/[\\d.]+ [\\d.]+/g) || []).map(pair => pair.split(' ').map(Number))}));
    const at = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / at.width;
    const x = (e.clientX - at.left) * scale, y = (e.clientY - at.top) * scale;
    let step = null;
    const rows = lines.filter(line => line.points.length).map(({path, name, points}) => {
      const next = points.findIndex(p => p[0] >= x), b = points[next < 0 ? points.length - 1 : next];
      const a = points[Math.max(next < 0 ? points.length - 1 : next - 1, 0)];
      const p = Math.abs(a[0] - x) < Math.abs(b[0] - x) ? a : b;
      const part = b[0] > a[0] ? Math.min(Math.max((x - a[0]) / (b[0] - a[0]), 0), 1) : 0;
      step = x0 + (p[0] - left) / (right - left) * (x1 - x0);
      return {path, name, value: y1 + (p[1] - top) / (bottom - top) * (y0 - y1),
        away: Math.abs(a[1] + part * (b[1] - a[1]) - y)};
    }).sort((a, b) => b.value - a.value);
    if (!rows.length) return;
    const nearest = rows.reduce((a, b) => b.away < a.away ? b : a);
    mark(nearest.path);
    const shown = Math.abs(step) < 20 ? step.toFixed(1).replace(/\\.0$/, '') : step.toFixed(0);
    tip.replaceChildren(...[[`${svg.dataset.x} ${shown}`, 'span'], ...rows.map(row => [
      `${row.value.toFixed(digits)}  ${row.name}`, row === nearest ? 'b' : 'span'])].map(([text, kind]) =>
        Object.assign(document.createElement(kind), {textContent: text})));
    tip.hidden = false;
    const room = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(e.clientX + 14, innerWidth - room.width - 8))}px`;
    tip.style.top = `${Math.max(4, Math.min(e.clientY + 14, innerHeight - room.height - 8))}px`;
  };
  svg.addEventListener('pointermove', tell);
  svg.addEventListener('pointerdown', tell);
  svg.addEventListener('pointerleave', e => { if (e.pointerType !== 'touch') hide(); });
}
"""
