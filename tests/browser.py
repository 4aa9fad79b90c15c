"""A page in Chromium, and what is asked of it there: it is read, tabbed through and clicked as a person does."""

import contextlib
import os
import pathlib
import shutil
import urllib.parse

import pytest

BROWSERS = ('chromium-headless-shell', 'chromium', 'chromium-browser', 'google-chrome', 'chrome')

# What Tab has to reach: all that can be used and is not hidden, nor inside a part that is closed.
_CONTROLS = """() => [...document.querySelectorAll('a[href], button, summary, input, select, [tabindex="0"]')]
  .filter(e => e.checkVisibility({contentVisibilityAuto: true, visibilityProperty: true}))
  .map((e, i) => { e.dataset.control = i; return i; })"""

# The element that has the focus: which control it is, whether it is on the screen, and its outline against what is
# behind it.
_FOCUSED = """() => {
  const e = document.activeElement;
  if (!e || e === document.body) return null;
  const box = e.getBoundingClientRect(), style = getComputedStyle(e);
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  let under = e.parentElement;
  while (under && numbers(getComputedStyle(under).backgroundColor)[3] === 0) under = under.parentElement;
  const a = light(numbers(style.outlineColor));
  const b = light(numbers(getComputedStyle(under || document.body).backgroundColor));
  const left = Math.max(box.left, 0), top = Math.max(box.top, 0);
  return {control: e.dataset.control === undefined ? null : Number(e.dataset.control), what: e.outerHTML.slice(0, 90),
    seen: box.right > left && box.bottom > top && left < innerWidth && top < innerHeight,
    outline: style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth),
    contrast: (Math.max(a, b) + .05) / (Math.min(a, b) + .05)};
}"""

# A place on the screen of each line of a chart: one where no other line is near, if there is one.
_LINES = """svg => {
  const paths = [...svg.querySelectorAll('path[data-n]')];
  for (const path of paths) Object.assign(path.style, {strokeWidth: '14px', strokeDasharray: 'none'});
  const places = paths.map(path => {
    const at = share => path.getPointAtLength(path.getTotalLength() * share);
    const alone = Array.from({length: 39}, (_, i) => at((i + 1) / 40)).find(point =>
      paths.every(other => other === path || !other.isPointInStroke(point)));
    const place = (alone || at(.5)).matrixTransform(path.getScreenCTM());
    return {name: path.dataset.n, x: place.x, y: place.y, alone: Boolean(alone)};
  });
  for (const path of paths) path.removeAttribute('style');
  return places;
}"""


@contextlib.contextmanager
def started():
  """A headless Chromium; skips where there is none, or no Playwright."""
  api = pytest.importorskip('playwright.sync_api', reason='no playwright: install requirements-browser.txt')
  path = os.environ.get('CHROMIUM') or next(filter(None, map(shutil.which, BROWSERS)), None)
  with api.sync_playwright() as playwright:
    path = path or playwright.chromium.executable_path
    if not pathlib.Path(path).exists():
      pytest.skip('no Chromium: install one, or name it in CHROMIUM')
    browser = playwright.chromium.launch(executable_path=path, args=['--no-sandbox'])  # root has no sandbox
    yield browser
    browser.close()


@contextlib.contextmanager
def opened(browser, path, width=1280, theme='light', **options):
  """A page of `browser` with the file `path`, so wide and in this theme. Raises where it complains or asks for more."""
  context = browser.new_context(viewport={'width': width, 'height': 800}, color_scheme=theme, **options)
  page, told, asked = context.new_page(), [], []
  page.on('console', lambda message: told.append(message.text))
  page.on('pageerror', lambda error: told.append(str(error)))
  page.on('request', lambda request: asked.append(request.url))
  page.goto(path.as_uri())
  yield page
  context.close()
  assert not told, told
  rest = [url for url in asked if not url.startswith('data:') and url.partition('#')[0] != path.as_uri()]
  assert not rest, rest


def looked_at(page):
  """Asks for what can be seen at once: no part is wider than the page, and every picture says what it shows."""
  wide = page.evaluate('[document.documentElement.scrollWidth, document.documentElement.clientWidth]')
  assert wide[0] <= wide[1], wide
  mute = page.evaluate("""[...document.querySelectorAll('img, svg[role=img]')]
    .filter(e => !(e.getAttribute('alt') || e.getAttribute('aria-label') || '').trim() || e.naturalWidth === 0)
    .map(e => e.outerHTML.slice(0, 90))""")
  assert not mute, mute


def broken_rules(page) -> list[str]:
  """The violations that axe-core finds, each with the elements."""
  axe = pytest.importorskip('axe_playwright_python.sync_playwright', reason='install requirements-browser.txt').Axe()
  found = axe.run(page).response
  return [f'{rule["id"]}: {rule["help"]}: {node["html"][:160]} {node.get("failureSummary", "")[:300]}'
          for rule in found['violations'] for node in rule['nodes']]


def tabbed_through(page):
  """Presses Tab until it is at the end: every control gets the focus, can be seen then, and its outline too."""
  left, order = set(page.evaluate(_CONTROLS)), []
  for _ in range(len(left) + 5):
    page.keyboard.press('Tab')
    at = page.evaluate(_FOCUSED)
    if at is None:
      break
    assert at['control'] is not None, at
    assert at['seen'] and at['outline'] >= 2 and at['contrast'] >= 3, at
    order.append(at['control'])
    left.discard(at['control'])
  assert not left, [page.locator(f'[data-control="{i}"]').evaluate('e => e.outerHTML.slice(0, 160)') for i in left]
  assert order == sorted(order)  # in the order in which it is read


def hovered(page):
  """Holds the pointer over every line of every chart: what stands beside it names the line, and is inside the page."""
  charts = page.locator('svg[data-scale]')
  for i in range(charts.count()):
    chart = charts.nth(i)
    if not chart.is_visible():
      continue
    chart.scroll_into_view_if_needed()
    for line in chart.evaluate(_LINES):
      page.mouse.move(line['x'], line['y'])
      tip = page.locator('#tip')
      assert tip.is_visible() and line['name'] in tip.text_content(), (line, tip.text_content())
      assert tip.locator('b').count() == 1 and page.locator('.near').count() == 1
      if line['alone']:
        assert tip.locator('b').text_content().endswith(f'  {line["name"]}'), (line, tip.text_content())
      box, size = tip.bounding_box(), page.viewport_size
      assert box['x'] >= 0 and box['y'] >= 0 and box['x'] + box['width'] <= size['width'] and (
          box['y'] + box['height'] <= size['height']), (line, box)
    page.mouse.move(1, 1)
    assert not page.locator('#tip').is_visible()
  return charts.count()


def clicked_through(page, folder):
  """Clicks all that can be clicked; returns the files that links lead to, each of which is there."""
  for link in page.locator('nav a').all():
    link.click()
    target = link.get_attribute('href')
    assert page.evaluate('location.hash') == target
    top = page.locator(target).bounding_box()
    assert -2 <= top['y'] < page.viewport_size['height'], (target, top)
  for summary in page.locator('summary').all():
    details = summary.locator('xpath=..')
    before = details.evaluate('e => e.open')
    summary.click()
    assert details.evaluate('e => e.open') is not before
    if before:
      summary.click()
  for button in page.locator('button').all():
    button.click()
    said = page.locator('[role=status]')
    said.filter(has_text='cop').or_(said.filter(has_text='selected')).first.wait_for()
  files = []
  for href in page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href'))"):
    if not href.startswith('#'):
      path = folder / urllib.parse.unquote(href)
      assert path.exists(), href
      files.append(path)
  return files
