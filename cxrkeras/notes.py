"""Short notes that several rooms compare and show."""

COLLAPSED = "collapsed: nearly the same logit for all images, counted as 0.5"
