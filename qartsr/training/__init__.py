"""Training: one loop for pretraining, TRQ, RPQ and ET; it knows neither stages nor the tracking server."""
