"""With what a figure was made: versions, git revision, processor. Imports no JAX."""

import hashlib
import importlib.metadata
import pathlib
import platform
import subprocess

from vimnas_jax import isa


def software(packages) -> dict:
  """{'versions': {'python' and those of `packages` that are installed: version}, 'git': revision or None}."""
  versions = {'python': platform.python_version()}
  for package in packages:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  here = pathlib.Path(__file__)
  try:
    for command in (['ls-files', '--error-unmatch', here.name],  # fails where it is installed in another's repository
                    ['describe', '--always', '--dirty', '--abbrev=40']):
      git = subprocess.run(['git', *command], capture_output=True, text=True, timeout=10, check=True,
                           cwd=here.parent).stdout.strip()
  except (OSError, subprocess.SubprocessError):
    git = None
  return {'versions': versions, 'git': git}


def sources() -> str:
  """A digest, SHA-256 in hex, of the sources of this package, as they are on the disk."""
  digest = hashlib.sha256()
  for path in sorted(pathlib.Path(__file__).resolve().parents[1].rglob('*.py')):
    digest.update(path.read_bytes())
  return digest.hexdigest()


def machine() -> str:
  """'x86_64 2 x AMD EPYC, AVX-512': what a result was computed on, its vectors too: rounding depends on them.

  'AVX2 of AVX-512' where XLA_FLAGS asks for less than the processor has.
  """
  try:
    flags = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace').partition('\nflags')[2]
  except OSError:
    flags = ''
  words = flags.partition('\n')[0].split()
  vectors = next((name for flag, name in (('avx512f', 'AVX-512'), ('avx2', 'AVX2')) if flag in words), '')
  if isa.most() and isa.most() != vectors:
    vectors = f'{isa.most()} of {vectors}' if vectors else isa.most()
  return f'{platform.machine()} {processor()}'.strip() + (f', {vectors}' if vectors else '')


def processor() -> str:
  """'2 x AMD EPYC', or what Python knows of the processor where there is no /proc/cpuinfo."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace').splitlines()
  except OSError:
    return platform.processor()
  names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
  return f'{len(names)} x {names[0]}' if names else ''
