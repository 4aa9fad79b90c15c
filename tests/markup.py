"""Reads a page as a browser does, and asks of it what a checker asks."""

import html.parser
import re

VOID = {'meta', 'br', 'img', 'hr', 'input', 'link'}


class Whole(html.parser.HTMLParser):
  """Reads a page as a browser does, and asks of it what a checker asks."""

  def __init__(self, text, folder=None):
    super().__init__()
    self.open, self.ids, self.targets, self.links, self.headings, self.scripts = [], [], [], [], [], 0
    self.text, self.svgs, self.attributes, self.folder = [], 0, [], folder
    assert text.startswith('<!doctype html>\n<html lang="en">')
    self.feed(text)
    self.close()
    assert not self.open and len(set(self.ids)) == len(self.ids)
    assert set(self.targets) <= set(self.ids), set(self.targets) - set(self.ids)
    assert self.headings[0] == 1 and self.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(self.headings, self.headings[1:]))
    assert self.scripts == 1 and 'nan' not in re.findall(r'\w+', ' '.join(self.text).lower())
    assert len(text) < 1.5e6 and '\x1b' not in text
    for name, value in self.attributes:
      assert not re.match(r'(https?:)?//', value or '') and 'url(' not in (value or '') and not name.startswith('on')
      if name == 'src':
        assert value.startswith('data:image/')
    for link in self.links:
      assert folder is None or (folder / link).exists() or link == 'result.json', link

  def handle_starttag(self, tag, attrs):
    given = dict(attrs)
    assert len(given) == len(attrs), tag
    self.attributes += attrs
    if 'id' in given:
      self.ids.append(given['id'])
    self.targets += [*given.get('aria-labelledby', '').split(), *([given['data-of']] if 'data-of' in given else [])]
    if tag == 'a':
      href = given['href']
      (self.targets if href.startswith('#') else self.links).append(href.removeprefix('#'))
    if tag == 'svg':
      self.svgs += 1
      assert given.get('aria-hidden') == 'true' or (given['role'] == 'img' and given['aria-label'].strip())
    if tag == 'img':
      assert given['alt']
    if tag == 'th':
      assert given['scope'] in ('row', 'col')
    if tag == 'div' and given.get('class') == 'box':
      assert given['tabindex'] == '0' and given['aria-label']
    if re.fullmatch('h[1-6]', tag):
      self.headings.append(int(tag[1]))
    self.scripts += tag == 'script'
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] not in ('script', 'style'):
      self.text.append(data)

  @property
  def said(self):
    return ' '.join(' '.join(self.text).split())


def read(folder):
  """The page of a run folder, which is whole; `said` has its text."""
  return Whole((folder / 'report.html').read_text(encoding='utf-8'), folder)
