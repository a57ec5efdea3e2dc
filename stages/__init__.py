"""One thin file per DVC stage, same name: parse, call one verb, write, log."""
