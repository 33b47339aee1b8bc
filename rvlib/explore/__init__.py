"""Explorables: figures that a reader drives, computed where they are drawn, with no kernel needed.

Each is one class, whose parameters are traits, and one ES module of the same name in `web/`. Where a kernel runs it
shows itself as a widget; in a static page as a `<figure>` that `web/mount.mjs` brings to life; and where no script runs
as a picture with a text alternative.
"""

from rvlib.explore._explorable import Explorable
from rvlib.explore.calculator import Calculator
from rvlib.explore.predictors import Predictors
from rvlib.explore.tables import Tables
from rvlib.explore.theory import Constructions, Exponents, Grades, Gradient, Steps, Teachers
from rvlib.explore.training import BestOfN, Curves, Dial, Landscape, Race, Samples
