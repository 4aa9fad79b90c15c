"""Which of a processor's instructions programs may use: XLA's own flag for that holds for the kernels as well."""

import os
import re

_FLAG = re.compile(r'--xla_cpu_max_isa=(\w+)')
_WIDE = re.compile(r'avx512|avx10|amx')  # names of features, in LLVM's words, that begin so


def most() -> str:
  """What XLA_FLAGS lets programs use where that is less than AVX-512: 'AVX2', 'AVX' or 'SSE4_2'; '' without a bound."""
  found = _FLAG.findall(os.environ.get('XLA_FLAGS', ''))
  return found[-1].upper() if found and found[-1].upper() in ('SSE4_2', 'AVX', 'AVX2') else ''


def narrow() -> bool:
  """Whether XLA_FLAGS has --xla_cpu_max_isa=AVX2, or less: the kernels have no instruction of AVX-512 then."""
  return bool(most())


def allowed(features: dict[str, bool]) -> dict[str, bool]:
  """{a feature, in LLVM's words: whether programs may use it}, from whether the processor has it."""
  off = narrow()
  return {name: has and not (off and _WIDE.match(name)) for name, has in features.items()}
