"""Words of the report in plain English: parts of losses as the curves call them, and verdicts."""

from __future__ import annotations

VERDICTS = {
    "agrees": "the interval of our mean minus the published number contains 0",
    "worse, better": "it does not, and ours is the worse or the better one",
    "not comparable": "fewer than 2 seeds, unlike protocols, other data, or no published number",
    "equal, differs": "of entries that rest on no run: counts of images, layers of networks, recomputed p values",
    "not run, failed": "planned, but there is no run yet; or it ended with an error, which is said",
    "published only": "copied from the paper; nothing is run for it here",
    "holds, fails, undecided": "of claims: what the runs at one rung say, see the page of the claims",
}
# Names of a run's curves; "over_" before one: of the auxiliary head with more clusters than classes.
LOSS_PARTS = {
    "loss": "what is minimised, all parts with their weights",
    "L_AF": "DRC: contrast between the assignment features of two views of an image",
    "L_AP": "DRC: contrast between clusters, by the probabilities of two views",
    "L_CR": "DRC: regularisation against few large clusters",
    "L_PG": "DCCM: images that the pseudo-graph links shall agree, others not (with _t: transformed images)",
    "L_PL": "DCCM: confident images shall keep their pseudo-label (with _t: transformed images)",
    "L_MI": "DCCM: mutual information between two layers",
    "linked": "share of pairs that supervise as alike",
    "selected": "DAC: share of pairs that supervise at all",
    "confident": "share of images that are sure enough to supervise",
    "L_PC": "CRLC: contrast between the cluster probabilities of two views",
    "L_FC": "CRLC, SimCLR: contrast between the features of two views",
    "H": "entropy of the mean probabilities: large where clusters are evenly used",
    "L_reg": "penalty on large logits",
    "L_CE": "CRLC-semi: cross-entropy of the labelled images",
    "L1": "TCC: contrast between clusters, by what their members have in common",
    "L2": "TCC: contrast between images, with the sampled cluster",
    "nll": "TCC: contrastive part of L2",
    "KL": "distance of the assignments (TCC) or of the code (VAE) from their prior",
    "DEC": "TCC: DEC's loss, watched and not minimised",
    "clusters_loss": "TCC: contrast between clusters of the whole set, once an epoch",
    "L_KL": "DEC: distance of the soft assignments from their sharpened target",
    "changed": "DEC: share of images that changed their cluster since the last target",
    "L_group": "DeepCluster-v2: telling the group of an image's other crops",
    "L_target": "MMDC: distance of the outputs from their targets",
    "turns_L_turns": "MMDC: which way round an image was turned",
    "turns_loss": "MMDC: what the turned images add",
    "L_swap": "IMC-SwAV: predicting one view's prototypes from another view",
    "L_cluster": "IMC-SwAV: mutual information between prototypes and clusters",
    "L_ins": "CC: contrast between images",
    "L_clu": "CC: contrast between clusters",
    "balance": "penalty on unevenly used clusters",
    "L_pair": "DAC: chosen pairs shall be alike or unlike",
    "L_aux": "DAC: second loss of the authors' code",
    "L_id": "IDFD: each image is told from all others",
    "L_fd": "IDFD: the coordinates of the features are made independent",
    "H_gate": "MiCE: entropy of the gate's assignments",
    "H_posterior": "MiCE: entropy of the posterior assignments",
    "CE": "PICA: clusters of two views shall match one to one",
    "MI": "IIC: mutual information between the assignments of two views",
    "consistency": "SCAN: neighbours shall have the same cluster",
    "cosine": "mean cosine of the features of two views of an image",
    "L_rec": "auto-encoder: error of the reconstruction",
    "L_sparse": "auto-encoder: size of the code, to make it sparse",
    "L_real": "GAN: error of the discriminator on images",
    "L_made": "GAN: error of the discriminator on what the generator made",
    "generator_loss": "GAN: what the generator minimises",
    "L_s": "FixMatch and others: error on labelled images",
    "L_u": "FixMatch and others: disagreement between views of unlabelled images",
    "L_first": "ReMixMatch: disagreement of a strong view with the guess made on a weak one",
    "L_rotation": "ReMixMatch: error on how a view was rotated",
    "active": "JULE: share of the triplets that still have something to learn",
    "clusters": "JULE: clusters that are left; merging ends at the number asked for",
    "right": "probe: share of its training images that it gets right; RotNet, DeepCluster: of what it is taught",
    "components": "agglomerative clustering: connected parts of the graph of neighbours",
    "last_eigenvalue": "spectral clustering: smallest eigenvalue that is used",
    "iterations": "K-means, NMF: steps until nothing changes",
}
NO_PARTS = ("epoch", "step", "lr")


def plain_name(part: str) -> str:
    """Return the entry of `LOSS_PARTS` that a curve's name is explained by."""
    name = part.removeprefix("over_")
    return name if name in LOSS_PARTS else name.removesuffix("_t")
