"""The comparison of methods, one thin file per DVC stage of experiments/dvc.yaml."""
