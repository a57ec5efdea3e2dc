"""The comparison of methods, one thin file per DVC stage of dvc.yaml beside it."""
