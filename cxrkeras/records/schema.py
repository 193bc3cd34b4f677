"""Encoding and parsing of one example of the records, defined together."""

import tensorflow as tf


def encode_example(image: bytes, values: bytes, image_id: str, patient_id: str) -> bytes:
    """Serialise one example; `image` is raw uint8 grey of size x size, `values` one int8 per label."""

    def feature(content: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))

    features = {
        "image": feature(image),
        "labels": feature(values),
        "image_id": feature(image_id.encode()),
        "patient_id": feature(patient_id.encode()),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    serialised: bytes = example.SerializeToString(deterministic=True)
    return serialised


def parse_examples(
    serialised: tf.Tensor, size: int, num_labels: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Parse a batch of serialised examples, string (N,).

    Returns images uint8 (N, size, size, 1), values int8 (N, num_labels), image ids and patient ids, string (N,).
    """
    text = tf.io.FixedLenFeature([], tf.string)
    parsed = tf.io.parse_example(serialised, dict.fromkeys(("image", "labels", "image_id", "patient_id"), text))
    images = tf.reshape(tf.io.decode_raw(parsed["image"], tf.uint8), [-1, size, size, 1])
    values = tf.reshape(tf.io.decode_raw(parsed["labels"], tf.int8), [-1, num_labels])
    return images, values, parsed["image_id"], parsed["patient_id"]
