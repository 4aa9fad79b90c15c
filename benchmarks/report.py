"""What the records of `benchmarks.step` say: medians, ratios, a table and a bar chart."""

import statistics

from vimnas_jax.draw import INK, QUIET

_FILLS = {'fused': '#1f5fa8', 'ours': '#1f5fa8', 'reference': '#a9c6e8', 'torch': '#b86a00', 'torch_malloc': '#f0a030'}
_NAMES = {'fused': 'fused', 'ours': 'ours', 'reference': 'reference form', 'torch': 'PyTorch',
          'torch_malloc': 'PyTorch, malloc set'}
GIB = 2 ** 30


def summarise(records, gflop) -> dict:
  """{'forms': {form: figures}, 'torch_step_s', 'torch_peak_gib', 'matmul_gflops'} of the workers' `records`.

  `gflop` is the arithmetic of one step. A ratio is PyTorch's better figure over the form's: 2 means half of PyTorch's.
  The peak is the largest of all rounds, that of the compiler included; the warm one leaves out the first round.
  """
  forms = {}
  for form in dict.fromkeys(r['form'] for r in records):
    own = [r for r in records if r['form'] == form]
    compiles = [r['compile_s'] for r in own if r['compile_s'] is not None]
    seconds = [s for r in own for s in r['step_s']]
    temp = own[0]['xla_temp_bytes']
    peaks = [(r['device_peak_bytes'] or r['peak_rss_bytes']) / GIB for r in own]
    forms[form] = {
        'step_s': statistics.median(seconds), 'step_s_min': min(seconds), 'step_s_max': max(seconds),
        'peak_gib': max(peaks), 'warm_peak_gib': max(peaks[1:], default=None),
        'xla_temp_gib': temp / GIB if temp is not None else None,
        'cold_compile_s': compiles[0] if compiles else None, 'cold_start_s': own[0]['start_s'],
        'warm_start_s': statistics.median(r['start_s'] for r in own[1:]) if own[1:] else None}
  matmul = max(r['matmul_gflops'] for r in records)  # the best of all processes: what the machine can do
  torch = [figures for form, figures in forms.items() if form.startswith('torch')]
  step = min((f['step_s'] for f in torch), default=None)
  peak = min((f['peak_gib'] for f in torch), default=None)
  for figures in forms.values():
    figures['gflops'] = gflop / figures['step_s']
    figures['matmul_percent'] = 100 * figures['gflops'] / matmul
    figures['torch_time_ratio'] = step and step / figures['step_s']
    figures['torch_memory_ratio'] = peak and peak / figures['peak_gib']
  return {'forms': forms, 'torch_step_s': step, 'torch_peak_gib': peak, 'matmul_gflops': matmul}


_COLUMNS = (('s/step', 'step_s', '{:.3f}'), ('x faster', 'torch_time_ratio', '{:.2f}'),
            ('peak GiB', 'peak_gib', '{:.2f}'), ('x smaller', 'torch_memory_ratio', '{:.2f}'),
            ('warm GiB', 'warm_peak_gib', '{:.2f}'),
            ('compile s', 'cold_compile_s', '{:.1f}'), ('warm start s', 'warm_start_s', '{:.1f}'),
            ('GFLOP/s', 'gflops', '{:.1f}'), ('% of matmul', 'matmul_percent', '{:.1f}'))


def table(found) -> list[str]:
  """Lines of text: what was measured, one row per form, and how to read them."""
  lines = [_title(found), f'{"form":<14}' + ''.join(f'{head:>{len(head) + 3}}' for head, _, _ in _COLUMNS)]
  for form, figures in found['forms'].items():
    cells = ['-' if figures[key] is None else how.format(figures[key]) for _, key, how in _COLUMNS]
    lines.append(f'{form:<14}' + ''.join(f'{cell:>{len(head) + 3}}' for cell, (head, _, _) in zip(cells, _COLUMNS)))
  return [*lines, f'x faster, x smaller: than the better of the PyTorch runs. warm: compiled programs cached. '
          f'{found["gflop_per_step"]:.4g} GFLOP a step; a dense float32 product runs at '
          f'{found["matmul_gflops"]:.0f} GFLOP/s here.']


def _title(found):
  a = found['args']
  return (f'{a["space"]}, {a["cells"]} cells, C = {a["channels"]}, batch {a["batch"]} of {a["side"]}x{a["side"]}, '
          f'{a["dtype"]}, {found["records"][0]["device"] if a["device"] == "gpu" else found["cpu"]}')


def draw(found, path):
  """Bars of seconds a step and of peak memory per form, into the file `path`."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
  forms = found['forms']
  figure = Figure(figsize=(10, 1.5 + 0.5 * len(forms)), dpi=120, facecolor='white', layout='constrained')
  FigureCanvasAgg(figure)
  figure.suptitle(_title(found) + ('\n(in brackets: how many times less than the better PyTorch run)'
                                   if found['torch_step_s'] else ''), fontsize=10, color=INK)
  kinds = (('seconds per step', 'step_s', 'torch_time_ratio', '{:.3g} s'),
           ('peak memory, GiB', 'peak_gib', 'torch_memory_ratio', '{:.2f} GiB'))
  for axes, (label, key, ratio, how) in zip(figure.subplots(1, 2, sharey=True), kinds):
    texts = [how.format(f[key]) + ('' if f[ratio] is None or form.startswith('torch') else f'   ({f[ratio]:.2f}x)')
             for form, f in forms.items()]
    bars(axes, label, forms, [figures[key] for figures in forms.values()], texts)
  axes.invert_yaxis()
  figure.savefig(path, dpi=120)


def bars(axes, label, forms, values, texts):
  """One bar of `values` with its text for each of `forms`, on `axes`."""
  drawn = axes.barh([_NAMES.get(form, form) for form in forms], values, height=0.62,
                     color=[_FILLS.get(form, '#6f9bcf') for form in forms])
  axes.bar_label(drawn, texts, padding=4, fontsize=9, color=INK)
  axes.set_xlim(0, 1.45 * max(values))
  axes.set_xlabel(label, color=INK)
  axes.tick_params(colors=QUIET, labelcolor=INK, left=False)
  axes.spines[['top', 'right', 'left']].set_visible(False)
  axes.spines['bottom'].set_color(QUIET)
