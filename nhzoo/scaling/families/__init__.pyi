from .coupled import fit_coupled as fit_coupled
from .predicting import predict as predict
