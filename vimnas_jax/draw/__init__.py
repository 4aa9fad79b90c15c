"""Pictures of cells, of architecture weights over time and of feature maps; matplotlib without a display,
and Pillow for the film.

Every function but `film` writes a file (its suffix names the format) and returns the figure. Nothing global is touched:
no pyplot, no rcParams. Artists that stand for data carry a gid, by which tests find them.
"""

from vimnas_jax.draw.base import FAMILIES, INK, QUIET, family
from vimnas_jax.draw.compare import comparison
from vimnas_jax.draw.confusion import confusion
from vimnas_jax.draw.curves import curves, regret
from vimnas_jax.draw.film import film
from vimnas_jax.draw.graph import cell
from vimnas_jax.draw.maps import distributions, feature_maps
from vimnas_jax.draw.traces import first_edges, weights

__all__ = ['FAMILIES', 'INK', 'QUIET', 'cell', 'comparison', 'confusion', 'curves', 'distributions', 'family',
           'feature_maps', 'film', 'first_edges', 'regret', 'weights']
