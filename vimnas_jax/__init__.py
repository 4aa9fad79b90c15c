"""vimnas_jax: differentiable neural architecture search in JAX (VIM-NAS, ICCV 2021)."""

__version__ = '0.1.0'
