"""Commands of scaling laws: fit, forecast, grade, plot, and sweeps."""
