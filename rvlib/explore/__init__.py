"""Explorables: figures that a reader drives, computed where they are drawn, with no kernel needed.

Each is one class, whose parameters are traits, and one ES module of the same name in `web/`. Where a kernel runs it
shows itself as a widget; in a static page as a `<figure>` that `web/mount.mjs` brings to life; and where no script runs
as a picture with a text alternative. This room may import every room but `rvlib.audit` and the command line, and
neither torch nor transformers. Start with `dial`, a short one, whose controls are made in `_controls`.
"""

from rvlib.explore._explorable import Explorable
from rvlib.explore.bestofn import BestOfN
from rvlib.explore.calculator import Calculator
from rvlib.explore.constructions import Constructions
from rvlib.explore.curves import Curves
from rvlib.explore.dial import Dial
from rvlib.explore.exponents import Exponents
from rvlib.explore.grades import Grades
from rvlib.explore.gradient import Gradient
from rvlib.explore.landscape import Landscape
from rvlib.explore.plateau import Plateau
from rvlib.explore.predictors import Predictors
from rvlib.explore.race import Race
from rvlib.explore.remedies import Remedies
from rvlib.explore.samples import Samples
from rvlib.explore.steps import Steps
from rvlib.explore.tables import Tables
from rvlib.explore.teachers import Teachers
