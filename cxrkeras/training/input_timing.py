"""Measures how long training waits for input."""

import tensorflow as tf


def time_waiting(batches: tf.data.Dataset) -> tuple[tf.data.Dataset, tf.Variable]:
    """Wrap batches to measure waiting; the batches, and a variable with the total seconds spent waiting for them."""
    with tf.device("CPU"):
        waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)
    requested = tf.data.Dataset.counter().map(lambda _: tf.timestamp())

    def add_waiting(requested, batch):
        with tf.control_dependencies([waited.assign_add(tf.timestamp() - requested)]):
            return tf.nest.map_structure(tf.identity, batch)

    timed = tf.data.Dataset.zip(requested, batches).map(add_waiting)
    return timed.apply(tf.data.experimental.assert_cardinality(len(batches))), waited
