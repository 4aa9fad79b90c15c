"""The opcodes of Python's pickles, interpreted so that a file of any content does no harm.

Python's own unpickler calls what a file names; its C half grows its memo by whatever index a file gives, and takes the
memory of a string's declared length before it has read one byte of it. Here memory stays in proportion to the bytes
that were read: a memo index is at most the place in the file, containers are counted, and lengths are believed as far
as bytes come. Keys are text, bytes, numbers and short tuples of these, because to hash a tuple nested without end
overflows the stack. What names stand for is the matter of a subclass.
"""

import codecs
import math
import pickle
import struct

FLOOR = 1 << 20  # bytes that even the smallest file may come to
_WINDOW = 1 << 20  # bytes read at once
_MARGIN = 272  # bytes that are there before an opcode is looked at: the longest with a length in one byte, and the next
_DEEPEST = 10_000  # containers begun in one another
_LONGEST = 255  # bytes of an integer
_PLAIN = frozenset((str, bytes))
_KEYS = _PLAIN | {int, float, bool, type(None)}


class Name:
  """What a pickle names; `call` makes something harmless of the arguments."""

  __slots__ = ('call',)

  def __init__(self, call):
    self.call = call


class Machine:
  """Reads pickles one after another from `file`; `load` gives the next.

  Args:
    file: is read from where it stands, ahead of what is used.
    encoding: 'bytes', which leaves the strings of Python 2 as they are, or 'latin1'.
    limit: bytes that may be read, for what unpacks a compressed file.
  """

  def __init__(self, file, encoding: str, limit: float = math.inf):
    self._file, self._encoding, self._limit = file, encoding, limit
    self._data, self._at, self._before, self._ended, self._spent, self._made = b'', 0, 0, False, 0, 0

  def find_class(self, module: str, name: str) -> Name:
    """What stands for module.name. Raises UnpicklingError for what may not be named."""
    raise pickle.UnpicklingError(f'it asks for {module[:60]}.{name[:60]}')

  def persistent_load(self, pid):
    """What is kept outside of the pickle: nothing here."""
    raise pickle.UnpicklingError('it asks for something outside of it')

  def build(self, value, state):
    """What `value` becomes with its state."""
    raise pickle.UnpicklingError(f'a state for {type(value).__name__}')

  def load(self):
    """The next pickle. Raises OSError where reading fails, and nearly anything where it is damaged."""
    stack, marks, memo = [], [], []
    push, keep, number = stack.append, memo.append, struct.Struct('>d').unpack_from
    data, at, fence = self._data, self._at, len(self._data) - _MARGIN
    while True:
      if at >= fence:
        self._at = at
        self._more(_MARGIN)
        data, at = self._data, self._at
        fence = math.inf if self._ended else len(data) - _MARGIN
        if at >= len(data):
          raise EOFError('it ends early')
      op = data[at]
      at += 1
      if op == 0x8C:  # SHORT_BINUNICODE
        end = at + 1 + data[at]
        push(data[at + 1:end].decode('utf-8', 'surrogatepass'))
        at = end
      elif op == 0x94:  # MEMOIZE
        keep(stack[-1])
      elif op == 0x47:  # BINFLOAT
        push(number(data, at)[0])
        at += 8
      elif op == 0x68:  # BINGET
        push(memo[data[at]])
        at += 1
      elif op == 0x6A:  # LONG_BINGET
        push(memo[int.from_bytes(data[at:at + 4], 'little')])
        at += 4
      elif op == 0x58 and (end := at + 4 + int.from_bytes(data[at:at + 4], 'little')) <= len(data):  # BINUNICODE
        push(data[at + 4:end].decode('utf-8', 'surrogatepass'))
        at = end
      elif op == 0x72 or op == 0x71:  # LONG_BINPUT, BINPUT
        size = 4 if op == 0x72 else 1
        index = int.from_bytes(data[at:at + size], 'little')
        if index == len(memo):
          keep(stack[-1])
        else:
          self._put(memo, index, stack[-1], at)
        at += size
      elif op == 0x4B:  # BININT1
        push(data[at])
        at += 1
      elif op == 0x4D:  # BININT2
        push(data[at] | data[at + 1] << 8)
        at += 2
      elif op == 0x4A:  # BININT
        push(int.from_bytes(data[at:at + 4], 'little', signed=True))
        at += 4
      elif op == 0x28:  # MARK
        marks.append(len(stack))
        if len(marks) > _DEEPEST:
          raise pickle.UnpicklingError('it is nested too deep')
      elif op == 0x2E:  # STOP
        self._at = at
        return stack.pop()
      else:
        self._at = at
        rare = _RARE.get(op)
        if rare is None:
          raise pickle.UnpicklingError(f'it has the opcode {op:#04x}')
        rare(self, stack, marks, memo)
        data, at = self._data, self._at
        fence = math.inf if self._ended else len(data) - _MARGIN

  def _more(self, needed: int):
    """Brings `needed` bytes after `_at` into `_data`, as far as there are any."""
    parts, there = [self._data[self._at:]], len(self._data) - self._at
    while there < needed and not self._ended:
      part = self._file.read(min(max(needed - there, _WINDOW), 16 * _WINDOW))
      self._ended = not part
      parts.append(part)
      there += len(part)
      if self._before + self._at + there > self._limit:
        raise pickle.UnpicklingError(f'it unpacks to more than {int(self._limit):,} bytes')
    self._before += self._at
    self._data, self._at = b''.join(parts), 0

  def take(self, size: int) -> bytes:
    """The next bytes."""
    if size < 0:
      raise pickle.UnpicklingError('a length below 0')
    if self._at + size > len(self._data):
      self._more(size)
      if size > len(self._data):
        raise EOFError('it ends early')
    self._at += size
    return self._data[self._at - size:self._at]

  def integer(self, size: int, signed: bool = False) -> int:
    """The next bytes as a number, the lowest first."""
    return int.from_bytes(self.take(size), 'little', signed=signed)

  def line(self) -> bytes:
    """What is left of the line."""
    searched = 0
    while (end := self._data.find(b'\n', self._at + searched)) < 0:
      searched = len(self._data) - self._at
      self._more(2 * searched + _MARGIN)
      if len(self._data) - self._at == searched:
        raise EOFError('it ends early')
    return self.take(end + 1 - self._at)[:-1]

  def _put(self, memo, index: int, value, at: int):
    size = len(memo)
    if index < size:
      memo[index] = value
      return
    if index > self._before + at:  # a pickler counts on
      raise pickle.UnpicklingError(f'memo index {index:,}')
    memo.extend([None] * (index - size))
    memo.append(value)

  def count(self, value):
    """A container, counted: there is one for eight bytes, beside the first 65,536."""
    self._made += 1
    if self._made > 65_536 and self._made * 8 > self._before + self._at:
      raise pickle.UnpicklingError('it holds more containers than data')
    return value

  def spend(self, content: bytes) -> bytes:
    """A copy of something that the pickle holds once and may name often."""
    self._spent += len(content)
    if self._spent > self._before + self._at + FLOOR:
      raise pickle.UnpicklingError('it copies more than it holds')
    return content

  def string(self, content: bytes) -> bytes | str:
    """A string of Python 2, as `encoding` says."""
    return content if self._encoding == 'bytes' else content.decode('latin1')

  def name(self, module, name) -> Name:
    """What stands for a name."""
    if not isinstance(module, str) or not isinstance(name, str):
      raise pickle.UnpicklingError('a name that is no text')
    return self.find_class(module, name)

  def _build(self, stack, marks, memo):
    state, value = stack.pop(), stack[-1]
    stack[-1] = built = self.build(value, state)
    if built is not value:
      for place in range(len(memo) - 1, max(len(memo) - 64, 0) - 1, -1):  # it was put there before its state came
        if memo[place] is value:
          memo[place] = built


def _popped(stack, marks) -> list:
  mark = marks.pop()
  items = stack[mark:]
  del stack[mark:]
  return items


def _last(stack, size) -> tuple:
  if len(stack) < size:
    raise pickle.UnpicklingError('it takes more than it has')
  items = tuple(stack[len(stack) - size:])
  del stack[len(stack) - size:]
  return items


def keys(values):
  """`values`, which may be keys: text, bytes, numbers, and tuples of at most four of these. Raises UnpicklingError."""
  if not _PLAIN.issuperset(map(type, values)):
    for value in values:
      for part in value if type(value) is tuple and len(value) <= 4 else (value,):
        if type(part) not in _KEYS or type(part) is int and abs(part) >> 60:  # others may all have the same hash
          raise pickle.UnpicklingError(f'a key of type {type(part).__name__}')
  return values


def _paired(items) -> dict:
  return dict(zip(keys(items[::2]), items[1::2], strict=True))


def _extend(stack, kind, items):
  into = stack[-1]
  if type(into) is not kind:
    raise pickle.UnpicklingError(f'items for a {kind.__name__} that go into {type(into).__name__}')
  if kind is list:
    into.extend(items)
  else:
    into.update(items)


def _called(stack):
  args, name = stack.pop(), stack.pop()
  if type(name) is not Name or type(args) is not tuple:
    raise pickle.UnpicklingError('it calls what is no name')
  return name.call(*args)


def _pushes(make):
  return lambda self, stack, marks, memo: stack.append(make(self))


def _makes(make):
  return lambda self, stack, marks, memo: stack.append(self.count(make(self, stack, marks)))


def _integer(self, size):
  if size > _LONGEST:
    raise pickle.UnpicklingError(f'an integer of {size:,} bytes')
  return self.integer(size, signed=True)


def _decimal(line):
  return line == b'01' if line in (b'00', b'01') else int(line.removesuffix(b'L')[:_LONGEST])


def _text(content):
  return content.decode('utf-8', 'surrogatepass')


def _quoted(line):
  if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b'"', b"'"):
    raise pickle.UnpicklingError('a string without quotes')
  return codecs.escape_decode(line[1:-1])[0]


_RARE = {ord(code): step for code, step in {
    b'\x80': lambda self, *_: self.take(1),  # PROTO
    b'\x95': lambda self, *_: self.take(8),  # FRAME
    b'N': _pushes(lambda self: None),
    b'\x88': _pushes(lambda self: True),
    b'\x89': _pushes(lambda self: False),
    b'I': _pushes(lambda self: _decimal(self.line())),
    b'L': _pushes(lambda self: _decimal(self.line())),
    b'F': _pushes(lambda self: float(self.line())),
    b'\x8a': _pushes(lambda self: _integer(self, self.integer(1))),  # LONG1
    b'\x8b': _pushes(lambda self: _integer(self, self.integer(4))),  # LONG4
    b'S': _pushes(lambda self: self.string(_quoted(self.line()))),
    b'T': _pushes(lambda self: self.string(self.take(self.integer(4, signed=True)))),
    b'U': _pushes(lambda self: self.string(self.take(self.integer(1)))),
    b'B': _pushes(lambda self: self.take(self.integer(4))),
    b'C': _pushes(lambda self: self.take(self.integer(1))),
    b'\x8e': _pushes(lambda self: self.take(self.integer(8))),  # BINBYTES8
    b'V': _pushes(lambda self: self.line().decode('raw-unicode-escape')),
    b'X': _pushes(lambda self: _text(self.take(self.integer(4)))),
    b'\x8d': _pushes(lambda self: _text(self.take(self.integer(8)))),  # BINUNICODE8
    b'P': _pushes(lambda self: self.persistent_load(self.line())),
    b'Q': lambda self, stack, marks, memo: stack.append(self.persistent_load(stack.pop())),
    b'c': _pushes(lambda self: self.name(self.line().decode(), self.line().decode())),
    b'\x93': lambda self, stack, marks, memo: stack.append(self.name(*(stack.pop(), stack.pop())[::-1])),
    b'R': _makes(lambda self, stack, marks: _called(stack)),
    b'\x81': _makes(lambda self, stack, marks: _called(stack)),  # NEWOBJ
    b'b': Machine._build,
    b']': _makes(lambda self, stack, marks: []),
    b'}': _makes(lambda self, stack, marks: {}),
    b'\x8f': _makes(lambda self, stack, marks: set()),
    b')': _pushes(lambda self: ()),
    b'\x85': _makes(lambda self, stack, marks: _last(stack, 1)),
    b'\x86': _makes(lambda self, stack, marks: _last(stack, 2)),
    b'\x87': _makes(lambda self, stack, marks: _last(stack, 3)),
    b't': _makes(lambda self, stack, marks: tuple(_popped(stack, marks))),
    b'l': _makes(lambda self, stack, marks: _popped(stack, marks)),
    b'd': _makes(lambda self, stack, marks: _paired(_popped(stack, marks))),
    b'\x91': _makes(lambda self, stack, marks: frozenset(keys(_popped(stack, marks)))),
    b'a': lambda self, stack, marks, memo: _extend(stack, list, _last(stack, 1)),
    b'e': lambda self, stack, marks, memo: _extend(stack, list, _popped(stack, marks)),
    b's': lambda self, stack, marks, memo: _extend(stack, dict, _paired(_last(stack, 2))),
    b'u': lambda self, stack, marks, memo: _extend(stack, dict, _paired(_popped(stack, marks))),
    b'\x90': lambda self, stack, marks, memo: _extend(stack, set, keys(_popped(stack, marks))),
    b'0': lambda self, stack, marks, memo: stack.pop(),
    b'1': lambda self, stack, marks, memo: _popped(stack, marks),
    b'p': lambda self, stack, marks, memo: self._put(memo, int(self.line()[:20]), stack[-1], self._at),
    b'g': lambda self, stack, marks, memo: stack.append(memo[int(self.line()[:20])]),
}.items()}
