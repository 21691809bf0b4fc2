from .plan import plan_sweep as plan_sweep
from .rates import fit_rates as fit_rates
from .running import run_sweep as run_sweep
