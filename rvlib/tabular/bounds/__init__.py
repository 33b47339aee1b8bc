"""Every bound of the paper and of the book, one function each: how large or small a gradient or a time can be.

    Lemma 8   ‖∇φ‖₁ ≤ Var^{1/2}                     Prop. 3     t_γ ≥ 2|S| (1 - e^{-γ/2}) Var^{-1/2}    tabular
    Prop. 2   ‖∇φ‖₂ ≤ 6 M^{1/3} L J Var^{1/3}       Theorem 4   t_γ ≥ min{...}/(8 L²J²) (E Var)^{-1/3}  autoregressive
    Prop. 4   t_γ ≤ 4|S||Y⁺|/((1-ρ)δ) (1/π(Y⁺) - 1/ρ)                                                   tabular

These names are those of the paper, arXiv 2503.15477. Labels such as `thm-sharper` are those of the book's results; its
concordance lists both. Arguments are numbers or arrays that broadcast, and results have their common shape,
unless a docstring says otherwise. Times are in the units of the flow dθ/dt = ∇φ(θ), with φ the mean over |S| prompts.

`growth` bounds gradients, variances and probabilities, `slow` times from below and `fast` times from above. This
package may import what `rvlib.tabular` may. Start with `growth.tabular_gradient_bound`.
"""

from rvlib.tabular.bounds.fast import (
    inaccurate_but_fast_time_bound,
    matching_teacher_time_bound,
    sharper_tabular_fast_time_bound,
    tabular_fast_time_bound,
)
from rvlib.tabular.bounds.growth import (
    gradient_norm_bound,
    movement_bound,
    sharper_gradient_norm_bound,
    sharper_tabular_mass_bound,
    tabular_gradient_bound,
    tabular_mass_bound,
    tabular_movement_bound,
    tabular_variance_growth_bound,
    variance_growth_bound,
)
from rvlib.tabular.bounds.slow import (
    accurate_but_slow_time_bound,
    gradient_slow_time_bound,
    gradient_time_bounds,
    horizon,
    mismatched_teacher_time_bound,
    sharper_slow_time_bound,
    slow_time_bound,
    tabular_slow_time_bound,
    two_marks_time_bound,
)
