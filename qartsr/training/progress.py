"""What a person sees of long work: a bar with ETA on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

_LINE_SECONDS = 10.0


class Progress:
    """Progress of ``steps`` steps named ``title``, standing at ``start``; nothing is seen unless ``shown``."""

    def __init__(self, title: str, steps: int, start: int = 0, shown: bool = True) -> None:
        self._title, self._steps, self._done, self._start, self._shown = title, steps, start, start, shown
        self._began = self._printed = time.monotonic()
        hidden = not (shown and sys.stderr.isatty())
        self._bar = tqdm(total=steps, initial=start, desc=title, leave=False, disable=hidden)

    def advance(self, loss: float) -> None:
        """One step is done."""
        self._done += 1
        self._bar.update()
        self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        now = time.monotonic()
        if self._shown and self._bar.disable and now - self._printed >= _LINE_SECONDS:
            self._printed = now
            left = (now - self._began) / (self._done - self._start) * (self._steps - self._done)
            print(
                f"{self._title}: {self._done}/{self._steps}, loss {loss:.4f}, {_clock(left)} left",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
