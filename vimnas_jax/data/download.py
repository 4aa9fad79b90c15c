"""Fetches official archives: goes on where a connection broke, checks the checksum, leaves nothing half-done."""

import http.client
import os
import pathlib
import urllib.error
import urllib.request

from vimnas_jax.data.pickles import md5, one_line
from vimnas_jax.errors import UserError

_ATTEMPTS = 4  # connections in a row that may bring nothing before a download gives up
_TIMEOUT = 60  # seconds without a byte
_CHUNK = 1 << 20


def _fetch(url: str, file) -> bool:
  """Appends to the open `file` what it lacks of `url`; says whether it is complete now. Raises OSError."""
  offset = file.seek(0, os.SEEK_END)
  request = urllib.request.Request(url, headers={'Range': f'bytes={offset}-'} if offset else {})
  try:
    response = urllib.request.urlopen(request, timeout=_TIMEOUT)
  except urllib.error.HTTPError as e:
    with e:
      if e.code == 416 and offset:  # nothing beyond what we have; the checksum will tell
        return True
      raise
  with response:
    if response.status != 206:  # the whole file: the server does not resume
      offset = file.seek(0)
      file.truncate()
    length = response.headers['Content-Length']
    while chunk := response.read(_CHUNK):
      file.write(chunk)
    file.flush()
  return length is None or file.tell() >= offset + int(length)  # too much is for the checksum to find


def download(path: pathlib.Path, source):
  """Fetches the archive to `path` by way of `path`.part, which a later call goes on with. One process at a time.

  `source` has its title, url, archive (a file name) and md5.

  Raises:
    UserError: no connection, no room, or a file whose checksum is wrong.
  """
  import fcntl  # not on Windows, which can read a data set all the same
  part = path.with_name(path.name + '.part')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open('ab') as file:
      fcntl.flock(file, fcntl.LOCK_EX)  # freed on close
      if path.exists():  # another process was faster; the empty .part is ours if it is still there
        part.unlink(missing_ok=True)
        return
      done, idle, most = False, 0, file.tell()
      while not done:
        try:
          done = _fetch(source.url, file)
        except (OSError, http.client.HTTPException) as e:
          if isinstance(e, urllib.error.HTTPError) and e.code < 500 or idle + 1 >= _ATTEMPTS:
            raise
        idle = 0 if file.tell() > most else idle + 1
        most = max(most, file.tell())
        if not done and idle >= _ATTEMPTS:
          raise ConnectionError('the connection closes early')
      found = md5(part)
      if found != source.md5:
        file.truncate(0)
        raise UserError(f'what {source.url} sent has md5 {found}, not {source.md5}, and was discarded; run again, or '
                        f'place {source.archive} in {path.parent} by hand')
      part.replace(path)
  except (OSError, http.client.HTTPException) as e:
    raise UserError(f'cannot download {source.url} to {path} ({one_line(e)}); run again to go on from {part.name}, '
                    'or set config.data.dir to a folder that has it') from None
