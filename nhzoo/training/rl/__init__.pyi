from .config import ImpalaConfig as ImpalaConfig
from .training import train_impala as train_impala
