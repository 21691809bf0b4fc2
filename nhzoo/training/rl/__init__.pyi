from .config import ImpalaConfig as ImpalaConfig
