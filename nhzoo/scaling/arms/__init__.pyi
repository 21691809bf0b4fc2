from .comparing import Comparison as Comparison
from .comparing import compare_arms as compare_arms
from .figures import plot_arms as plot_arms
