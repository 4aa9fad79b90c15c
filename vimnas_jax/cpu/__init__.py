"""Kernels for the CPU, as XLA custom calls: what XLA's own code does many times slower than the machine could."""
