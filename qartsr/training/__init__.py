"""Training: one loop for the sample's recipe, TRQ, RPQ and ET; it knows neither stages nor the tracking server."""
