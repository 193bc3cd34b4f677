import time

import tensorflow as tf

from cxrkeras.training.input_timing import time_waiting


def test_waiting_is_the_time_that_input_takes():
    slow = tf.data.Dataset.range(5).map(lambda x: tf.numpy_function(lambda v: (time.sleep(0.05), v)[1], [x], tf.int64))
    batches, waited = time_waiting(slow)
    assert len(batches) == 5
    assert [int(x) for x in batches] == list(range(5))
    assert waited >= 0.25
    fast, waited = time_waiting(tf.data.Dataset.range(5))
    for _ in fast:
        time.sleep(0.05)
    assert waited < 0.25
