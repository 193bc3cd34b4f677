import numpy as np
from networks import draw_images, draw_weights

from cxrkeras.models.classifier import build_classifier
from cxrkeras.scoring.predictor import build_live_predictor, build_predictor


def test_predictors_compute_what_the_network_does_and_only_the_live_one_follows_its_weights():
    network, images = build_classifier("resnet18", 32), draw_images(5, 32)
    draw_weights(network, images)
    predictor, live = build_predictor(network), build_live_predictor(network)
    before = network(images, training=False).numpy()
    np.testing.assert_allclose(predictor(images), before, atol=1e-5)
    np.testing.assert_allclose(live(images), before, atol=1e-5)
    network.get_layer("logits").bias.assign_add(np.ones(15))
    np.testing.assert_allclose(predictor(images), before, atol=1e-5)
    np.testing.assert_allclose(live(images), before + 1, atol=1e-5)
