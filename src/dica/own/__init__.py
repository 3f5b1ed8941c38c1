"""For images of one's own: a trained run applied to new ones, what a run would take here, a scikit-learn estimator."""
