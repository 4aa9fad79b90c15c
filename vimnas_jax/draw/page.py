"""A page of one file: markup in which all text is escaped, and the few parts that pages are made of.

What is no Html is escaped where it is put into markup: names of classes and files come from users.
"""

import html
import math
import os
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from vimnas_jax import files
from vimnas_jax.draw import palette, style

NOTHING = '–'  # for a value that is not known, or is no number
_VOID = ('meta', 'br', 'img', 'hr')


class Html(str):
  """Markup, which is put into other markup as it is."""


class Section(NamedTuple):
  """A part of a page: its id, its heading, and what is below it."""

  id: str
  heading: str
  parts: Sequence[Any]


def tag(name: str, /, *parts: Any, **attributes: Any) -> Html:
  """An element. Parts are Html, text, which is escaped, or sequences of both; None is left out.

  Attributes are escaped too: `class_` is class, `data_x` is data-x; None is left out, True has no value.
  """
  text = ''.join(f' {_attribute(key)}' + ('' if value is True else f'="{_escaped(value)}"')
                 for key, value in attributes.items() if value is not None and value is not False)
  if name in _VOID:
    return Html(f'<{name}{text}>')
  return Html(f'<{name}{text}>{joined(parts)}</{name}>')


def joined(parts: Iterable[Any]) -> Html:
  """Parts as those of `tag`, one after the other."""
  return Html(''.join('' if part is None else part if isinstance(part, Html) else
                      joined(part) if isinstance(part, list | tuple) else _escaped(part) for part in parts))


def _attribute(key: str) -> str:
  return key.rstrip('_').replace('_', '-')


def _escaped(value) -> str:
  return html.escape('\n'.join(map(files.printable, str(value).split('\n'))))


def real(value: Any) -> bool:
  """Whether `value` is a number that can be shown."""
  return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any, digits: int | None = None, unit: str = '') -> str:
  """A number with thousands apart, to so many digits after the point (None: as it is); NOTHING for what is none."""
  if not real(value):
    return NOTHING
  form = f',.{digits}f' if digits is not None else ',.6g' if isinstance(value, float) else ','
  text = format(value, form)
  return f'{text} {unit}' if unit else text


def link(path: str, text: Any = None) -> Html:
  """A link to a file, relative to the page."""
  return tag('a', path if text is None else text, href=urllib.parse.quote(os.fsencode(path)))


def paragraphs(*texts: Any) -> Html:
  """Every text that is not empty as a paragraph."""
  return joined([tag('p', text) for text in texts if text])


def bullets(texts: Iterable[Any]) -> Html:
  """A list."""
  return tag('ul', [tag('li', text) for text in texts])


def facts(rows: Iterable[tuple[Any, ...]], kind: str = 'facts') -> Html:
  """A list of (term, value) or (term, value, remark)."""
  return tag('dl', [tag('div', tag('dt', term), tag('dd', value, *(tag('small', more) for more in rest if more)))
                    for term, value, *rest in rows], class_=kind)


def box(part: Any, name: str) -> Html:
  """What may be wider than the page, in a box that scrolls by itself, by the keyboard too."""
  return tag('div', part, class_='box', tabindex='0', role='region', aria_label=name)


def table(caption: str, head: Sequence[Any], rows: Iterable[Sequence[Any]], kind: str = '') -> Html:
  """A table in a box of its own; the first column names its rows. A cell that is Html `td` is taken as it is."""
  cells = [[first, *(cell if isinstance(cell, Html) and cell.startswith('<td') else tag('td', cell) for cell in rest)]
           for first, *rest in rows]
  left = {i for i, cell in enumerate(cells[0] if cells else ()) if cell.startswith(('<td class="text"',
                                                                                    '<td class="barred"'))}
  return box(tag('table', tag('caption', tag('span', caption)), tag('thead', tag('tr', [
      tag('th', name, scope='col', class_='text' if i in left else None) for i, name in enumerate(head)])),
      tag('tbody', [tag('tr', tag('th', first, scope='row'), rest) for first, *rest in cells]), class_=kind or None),
      caption)


def bar(value: Any, most: float, text: str) -> Html:
  """A cell of a table with a bar that begins at zero and is full at `most`."""
  share = min(max(value / most, 0.0), 1.0) if real(value) and most > 0 else 0.0
  drawn = tag('span', class_='bar', style=f'--w:{100 * share:.1f}%', aria_hidden='true')
  return tag('td', drawn, text, class_='barred')


def more(summary: str, *parts: Any, open_: bool = False) -> Html:
  """What is shown when it is asked for."""
  return tag('details', tag('summary', summary), parts, open=open_ or None)


def warnings(texts: Sequence[Any], fine: str) -> Html:
  """Warnings, or in their place the line `fine`."""
  if not texts:
    return tag('p', tag('strong', 'Checks: '), fine, class_='fine')
  return tag('div', tag('p', tag('strong', 'Warnings' if len(texts) > 1 else 'Warning')), bullets(texts), class_='warn')


def swatch(slot: int) -> Html:
  """A small piece of the line of a slot."""
  return tag('svg', tag('path', d='M0 6H26', class_=f'line s{slot}'), viewBox='0 0 26 12', width='26', height='12',
             aria_hidden='true', class_='swatch')


def legend(places: dict[str, int]) -> Html:
  """What the lines of {name: slot} look like."""
  return tag('ul', [tag('li', swatch(slot), name) for name, slot in places.items()], class_='legend')


def document(title: str, kicker: str, lead: Sequence[Any], sections: Iterable[Section]) -> str:
  """The page, whole.

  Args:
    title: of the page, and its first heading.
    kicker: a line above it: what page this is.
    lead: what stands first, below the heading.
    sections: what follows; those without parts are left out.
  """
  sections = [section for section in sections if any(section.parts)]
  head = tag('head', tag('meta', charset='utf-8'),
             tag('meta', name='viewport', content='width=device-width, initial-scale=1'),
             tag('meta', http_equiv='Content-Security-Policy', content="default-src 'none'; img-src data:; style-src "
                 "'unsafe-inline'; script-src 'unsafe-inline'"),  # nothing is fetched, whatever a name holds
             tag('title', title), tag('style', Html(palette.css() + style.CSS)))
  menu = tag('nav', tag('ul', [tag('li', tag('a', section.heading, href=f'#{section.id}')) for section in sections]),
             aria_label='On this page')
  body = [tag('section', tag('h2', section.heading, id=f'{section.id}-h'), section.parts, id=section.id,
              aria_labelledby=f'{section.id}-h') for section in sections]
  return '<!doctype html>\n' + tag(
      'html', head, tag(
          'body', tag('a', 'Skip to the content', href='#main', class_='skip'),
          tag('header', tag('p', kicker, class_='kicker'), tag('h1', title)), menu,
          tag('main', tag('div', lead, class_='lead'), body, id='main', tabindex='-1'),
          tag('div', id='tip', hidden=True, aria_hidden='true'), tag('script', Html(style.SCRIPT))), lang='en') + '\n'
