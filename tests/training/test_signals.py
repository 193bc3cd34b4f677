import os
import signal

import pytest

from cxrkeras.training.signals import Interruption


def test_the_first_signal_is_recorded_and_the_second_interrupts():
    interruption, said = Interruption(), []
    before = signal.getsignal(signal.SIGINT)
    with interruption.watch(said.append):
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.is_wanted
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert said == ["stopping after this step"]
    assert signal.getsignal(signal.SIGINT) is before
