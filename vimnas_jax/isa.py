"""Which of a processor's instructions programs may use: XLA's own flag for that holds for the kernels as well."""

import os
import re

_FLAG = re.compile(r'--xla_cpu_max_isa=(\w+)')
_WIDE = re.compile(r'avx512|avx10|amx')  # names of features, in LLVM's words, that begin so


def narrow() -> bool:
  """Whether XLA_FLAGS has --xla_cpu_max_isa=AVX2, or less: no instruction of AVX-512 then."""
  found = _FLAG.findall(os.environ.get('XLA_FLAGS', ''))
  return bool(found) and found[-1].upper() in ('SSE4_2', 'AVX', 'AVX2')


def allowed(features: dict[str, bool]) -> dict[str, bool]:
  """{a feature, in LLVM's words: whether programs may use it}, from whether the processor has it."""
  off = narrow()
  return {name: has and not (off and _WIDE.match(name)) for name, has in features.items()}
