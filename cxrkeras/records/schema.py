"""One example of the records: encoding and parsing side by side."""

import tensorflow as tf

from cxrkeras import labels


def encode_example(image: bytes, label_bits: bytes, image_id: str, patient_id: str) -> bytes:
    """Serialise one example; `image` is raw uint8 grey of size x size, `label_bits` one byte of 0 or 1 a label."""

    def feature(content: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))

    features = {
        "image": feature(image),
        "labels": feature(label_bits),
        "image_id": feature(image_id.encode()),
        "patient_id": feature(patient_id.encode()),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def parse_examples(serialised: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Parse a batch of examples, string (N,), in one go.

    Returns images uint8 (N, size, size, 1), labels float32 (N, 15), image ids and patient ids, string (N,).
    """
    text = tf.io.FixedLenFeature([], tf.string)
    parsed = tf.io.parse_example(serialised, dict.fromkeys(("image", "labels", "image_id", "patient_id"), text))
    images = tf.reshape(tf.io.decode_raw(parsed["image"], tf.uint8), [-1, size, size, 1])
    hot = tf.reshape(tf.io.decode_raw(parsed["labels"], tf.uint8), [-1, len(labels.LABELS)])
    return images, tf.cast(hot, tf.float32), parsed["image_id"], parsed["patient_id"]
