"""What numba compiles: imported only where the machine code is not on disk yet (cpu/library.py)."""

from numba import cfunc, types

from vimnas_jax.cpu import table
from vimnas_jax.cpu.source import block, dense, job, leaves, loops, mix, oneshot, pools, stage, winograd
from vimnas_jax.cpu.source.frame import OPTIONS


def compile(name: str, vector: int, dtype: str) -> tuple[str, bytes]:
  """Compiles a function of table.py's table: (its symbol, its object code). All arguments and results are int64."""
  modules = {'stage': stage, 'dense': dense, 'pools': pools, 'mix': mix, 'winograd': winograd,
             'leaves': leaves, 'block': block, 'oneshot': oneshot}
  if name in ('work', 'handler'):
    function, count = getattr(job, name), 1
  else:
    owner = next((key for key, names in table.MODULES.items() if name in names), None)
    function, count = (modules[owner].chunk(name, vector, dtype), 2) if owner else loops.loop(name, vector, dtype)
  compiled = cfunc(types.int64(*[types.int64] * count), **OPTIONS)(function)
  unit = compiled._library
  return compiled.native_name, unit.codegen._tm.emit_object(unit._final_module)
