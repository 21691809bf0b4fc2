from .bc import train_bc as train_bc
from .config import BCConfig as BCConfig
from .run_table import LedgerRow as LedgerRow
from .run_table import RunRow as RunRow
from .run_table import append_row as append_row
from .run_table import read_runs as read_runs
