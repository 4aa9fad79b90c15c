"""How XLA's threads share the chunks of one call: the handler that XLA calls, and what each thread does."""

from vimnas_jax.cpu import library
from vimnas_jax.cpu.source.frame import address, attr, call, fetch_add, free, load, store, store32, zeros

# A job, shared by the threads of one call: int64 next chunk, chunks done, holders, chunks, call frame, chunk's code.
_NEXT, _DONE, _HOLDERS, _CHUNKS, _FRAME, _CODE, _SIZE = 0, 8, 16, 24, 32, 40, 48


_MAJOR, _MINOR = library.INTERFACE
_WORK = library.slot('work', 1, 'float32')


def work(job):
  """Runs chunks of a job until none is left; the last to leave frees the job."""
  chunks, frame, code = load(job + _CHUNKS), load(job + _FRAME), load(job + _CODE)
  while True:
    index = fetch_add(job + _NEXT, 1)
    if index >= chunks:
      break
    call(code, frame, index)
    fetch_add(job + _DONE, 1)
  if fetch_add(job + _HOLDERS, -1) == 1:
    free(job)
  return 0


def handler(frame):
  """What XLA calls: makes a job of the call, asks XLA's thread pool for help, and returns when all is done."""
  extension = load(frame + 8)
  if extension != 0:  # XLA asks what the handler is built for
    metadata = load(extension + 24)
    store32(metadata + 24, _MAJOR)
    store32(metadata + 28, _MINOR)
    return 0
  api, context, chunks = load(frame + 16), load(frame + 24), attr(frame, 1)
  query = zeros(80)  # two arguments for XLA's interface: four int64 that ask for the threads, five for a task
  task = query + 40
  store(query, 32)
  store(query + 16, context)
  store(query + 24, query + 32)
  store(query + 32, 1)
  call(load(api + 144), query)
  helpers = min(load(query + 32), chunks) - 1
  job = zeros(_SIZE)
  store(job + _HOLDERS, helpers + 2)
  store(job + _CHUNKS, chunks)
  store(job + _FRAME, frame)
  store(job + _CODE, load(address(attr(frame, 0))))
  store(task, 40)
  store(task + 16, context)
  store(task + 24, load(address(_WORK)))
  store(task + 32, job)
  for _ in range(helpers):
    if call(load(api + 136), task) != 0:
      fetch_add(job + _HOLDERS, -1)  # no thread pool: this thread does it all
  free(query)
  work_here = load(address(_WORK))
  call(work_here, job)
  while fetch_add(job + _DONE, 0) < chunks:
    pass  # others finish the chunks that they have taken
  if fetch_add(job + _HOLDERS, -1) == 1:
    free(job)
  return 0
