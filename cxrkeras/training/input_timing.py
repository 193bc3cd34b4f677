"""Measures how long a training waits for its input."""

import tensorflow as tf


def time_waiting(batches: tf.data.Dataset) -> tuple[tf.data.Dataset, tf.Variable]:
    """The same batches, and a variable that sums up the seconds for which they were waited for."""
    with tf.device("CPU"):
        waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)
    asked = tf.data.Dataset.counter().map(lambda _: tf.timestamp())

    def note(asked, batch):
        with tf.control_dependencies([waited.assign_add(tf.timestamp() - asked)]):
            return tf.nest.map_structure(tf.identity, batch)

    timed = tf.data.Dataset.zip(asked, batches).map(note)
    return timed.apply(tf.data.experimental.assert_cardinality(len(batches))), waited
