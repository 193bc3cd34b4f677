import os
import signal
import time

import pytest
import tensorflow as tf

from cxrkeras.training.input_timing import time_waiting
from cxrkeras.training.signals import Interruption


def test_waiting_is_what_the_input_takes():
    slow = tf.data.Dataset.range(5).map(lambda x: tf.numpy_function(lambda v: (time.sleep(0.05), v)[1], [x], tf.int64))
    batches, waited = time_waiting(slow)
    assert len(batches) == 5
    assert [int(x) for x in batches] == list(range(5))
    assert waited >= 0.25
    quick, waited = time_waiting(tf.data.Dataset.range(5))
    for _ in quick:
        time.sleep(0.05)
    assert waited < 0.25


def test_the_first_signal_is_noted_and_the_second_ends():
    interruption, said = Interruption(), []
    before = signal.getsignal(signal.SIGINT)
    with interruption.watch(said.append):
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.is_wanted
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert said == ["stopping after this step"]
    assert signal.getsignal(signal.SIGINT) is before
