"""Notes on scores that several packages compare and show."""

UNVERIFIED = (
    "calibration and thresholds are not verified: a sensitivity of 0.90 came out as 0.91 to 0.95 with simulated "
    "networks and as 0.97 on phantoms, with 1.2 to 3 times the least possible calibration error (benchmarks.ensembles)"
)
COLLAPSED = "collapsed: nearly the same logit for all images, counted as 0.5"
