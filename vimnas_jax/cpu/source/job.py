"""How XLA's threads share the chunks of one call: the handler that XLA calls, and what each thread does."""

from vimnas_jax.cpu import interface as xla
from vimnas_jax.cpu.source.frame import (
  abort,
  address,
  attr,
  call,
  fetch_add,
  free,
  function,
  load,
  load32,
  store,
  store32,
  text,
  zeros,
)
from vimnas_jax.cpu.table import slot

# A job, shared by the threads of one call: int64 next chunk, chunks done, holders, chunks, call frame, chunk's code.
_NEXT, _DONE, _HOLDERS, _CHUNKS, _FRAME, _CODE, _SIZE = 0, 8, 16, 24, 32, 40, 48

_MAJOR, _MINOR = xla.VERSION
_WORK = slot('work', 1, 'float32')

_OTHER_INTERFACE = text('the kernels of vimnas_jax are for another version of XLA\'s interface: set '
                        'VIMNAS_JAX_KERNELS=0')
_OTHER_STAGE = text('the kernels of vimnas_jax run in the stage \'execute\' alone')
_OTHER_ARGUMENTS = text('the kernels of vimnas_jax take buffers and 64-bit integers alone')


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


@function(1)
def _metadata(frame):
  """Where XLA wants to read what the handler is built for; 0 where it does not ask."""
  extension = load(frame + xla.FRAME_EXTENSION)
  while extension != 0:
    if load32(extension + xla.EXTENSION_TYPE) == xla.TYPE_METADATA and load(extension) >= xla.EXTENSION_SIZE:
      return load(extension + xla.EXTENSION_METADATA)
    extension = load(extension + xla.EXTENSION_NEXT)
  return 0


@function(1, 'boolean')
def _buffers(part):
  """Whether the arguments or the results are all buffers of the known layout."""
  types, items = load(part + xla.LIST_TYPES), load(part + xla.LIST_ITEMS)
  for i in range(load(part + xla.LIST_COUNT)):
    if load32(types + 4 * i) != xla.TYPE_BUFFER or load(load(items + 8 * i)) < xla.BUFFER_SIZE:
      return False
  return True


@function(1, 'boolean')
def _integers(part):
  """Whether the attributes are all int64."""
  types, items = load(part + xla.ATTRS_TYPES), load(part + xla.ATTRS_ITEMS)
  for i in range(load(part + xla.ATTRS_COUNT)):
    if load32(types + 4 * i) != xla.TYPE_SCALAR or load32(load(items + 8 * i) + xla.SCALAR_DTYPE) != xla.DTYPE_S64:
      return False
  return True


@function(2)
def _misfit(frame, api):
  """Address of what is to be said against a call; 0 where its structs are those that the kernels read."""
  args, rets, attrs = frame + xla.FRAME_ARGS, frame + xla.FRAME_RETS, frame + xla.FRAME_ATTRS
  if (load(api) < xla.API_SIZE or load32(api + xla.API_MAJOR) != _MAJOR or load32(api + xla.API_MINOR) < _MINOR
      or load(args) < xla.LIST_SIZE or load(rets) < xla.LIST_SIZE or load(attrs) < xla.ATTRS_SIZE):
    return _OTHER_INTERFACE()
  if load32(frame + xla.FRAME_STAGE) != xla.STAGE_EXECUTE:
    return _OTHER_STAGE()
  if load(attrs + xla.ATTRS_COUNT) < 2 or not (_buffers(args) and _buffers(rets) and _integers(attrs)):
    return _OTHER_ARGUMENTS()
  return 0


@function(2)
def _refuse(api, message):
  """An error of XLA, which it raises in Python."""
  asked = zeros(xla.CREATE_SIZE)
  store(asked, xla.CREATE_SIZE)
  store(asked + xla.CREATE_MESSAGE, message)
  store32(asked + xla.CREATE_ERRC, xla.FAILED_PRECONDITION)
  error = call(load(api + xla.API_ERROR_CREATE), asked)
  free(asked)
  return error


@function(2, 'boolean')
def _refused(api, error):
  """Whether XLA gave an error, which is ours to give back."""
  if error == 0:
    return False
  asked = zeros(xla.DESTROY_SIZE)
  store(asked, xla.DESTROY_SIZE)
  store(asked + xla.DESTROY_ERROR, error)
  call(load(api + xla.API_ERROR_DESTROY), asked)
  free(asked)
  return True


def handler(frame):
  """What XLA calls: makes a job of the call, asks XLA's thread pool for help, and returns when all is done."""
  metadata = _metadata(frame)
  if metadata != 0:  # XLA asks what the handler is built for, and refuses a version that it does not have
    if load(metadata) >= xla.METADATA_SIZE:
      fits = load(frame) >= xla.FRAME_SIZE
      store32(metadata + xla.METADATA_MAJOR, _MAJOR if fits else -1)
      store32(metadata + xla.METADATA_MINOR, _MINOR)
    return 0
  api, context = load(frame + xla.FRAME_API), load(frame + xla.FRAME_CTX)
  if load(frame) < xla.FRAME_SIZE or load(api) < xla.API_LEAST:
    abort()  # there is no way to say it, and to go on would be to write to any place
  problem = _misfit(frame, api)
  if problem != 0:
    return _refuse(api, problem)
  chunks = attr(frame, 1)
  query = zeros(xla.THREADS_SIZE + 8 + xla.TASK_SIZE)  # the question for the threads, its answer, a task
  count, task = query + xla.THREADS_SIZE, query + xla.THREADS_SIZE + 8
  store(query, xla.THREADS_SIZE)
  store(query + xla.THREADS_CTX, context)
  store(query + xla.THREADS_NUM, count)
  store(count, 1)
  _refused(api, call(load(api + xla.API_NUM_THREADS), query))  # without a thread pool the count stays 1
  helpers = min(load(count), chunks) - 1
  job = zeros(_SIZE)
  store(job + _HOLDERS, helpers + 2)
  store(job + _CHUNKS, chunks)
  store(job + _FRAME, frame)
  store(job + _CODE, load(address(attr(frame, 0))))
  store(task, xla.TASK_SIZE)
  store(task + xla.TASK_CTX, context)
  store(task + xla.TASK_TASK, load(address(_WORK)))
  store(task + xla.TASK_DATA, job)
  for _ in range(helpers):
    if _refused(api, call(load(api + xla.API_SCHEDULE), task)):
      fetch_add(job + _HOLDERS, -1)  # this thread does it
  free(query)
  work_here = load(address(_WORK))
  call(work_here, job)
  while fetch_add(job + _DONE, 0) < chunks:
    pass  # others finish the chunks that they have taken
  if fetch_add(job + _HOLDERS, -1) == 1:
    free(job)
  return 0
