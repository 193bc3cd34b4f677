"""A progress that tests can read afterwards."""

from cxrkeras.progress import Progress


class NotedProgress(Progress):
    """Keeps what is reported: `done` counts units by phase, `totals` has what was announced, `said` the sentences.

    `stop_at` raises KeyboardInterrupt once so many units of a phase are done.
    """

    def __init__(self, stop_at: tuple[str, int] | None = None):
        self.done, self.totals, self.said, self.epochs = {}, {}, [], []
        self.stop_at = stop_at

    def start(self, phase, total=0):
        self.done[phase], self.totals[phase] = 0, total

        def advance(count=1):
            self.done[phase] += count
            if self.stop_at and phase == self.stop_at[0] and self.done[phase] >= self.stop_at[1]:
                raise KeyboardInterrupt

        return advance

    def say(self, sentence):
        self.said.append(sentence)

    def end_epoch(self, done):
        self.epochs.append(done)
