"""A campaign of faults, ``make chaos``: damage, forgery, kills, full disks. What came of it: docs/reliability.md."""
