"""The commands as a person runs them: real files, real packages, what is printed and the exit status."""
