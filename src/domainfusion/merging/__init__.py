"""Merges of experts on one base into one model, in closed form: the sum, TSV-M and RegMean.

Expert k changes a layer's weights by Δₖ: sₖ·BₖAₖ for a LoRA adapter of scale sₖ, θₖ − θ for a whole
fine-tune of a base θ.

- `sum`: λ·ΣΔₖ (task arithmetic; Ilharco et al., 2022, arXiv 2212.04089). Needs no data.
- `tsv`: the experts' singular vectors are orthogonalized against each other before they are added
  (TSV-M; Gargiulo et al., 2024, arXiv 2412.00081). Needs no data.
- `regmean`: layer by layer, the update that gives what the merged layers before it make of an
  expert's dialogues nearly the outputs that the expert's update has in the expert itself: RegMean
  (Jin et al., 2022, arXiv 2212.09849) with the inputs of the merge, as in RegMean++ (Nguyen et al.,
  2025, arXiv 2508.03121), toward the outputs of the experts. Needs some of each expert's questions
  and answers.

The merge of LoRA adapters is one adapter, whose rank is the sum of the experts'; where an expert is
a whole fine-tune, the merge is one whole model. By `tsv` and `regmean`, weights that are not
matrices of linear layers, such as embeddings (tied ones among them) and norms, are averaged.
"""

from domainfusion.merging.merger import Dialogues, Merger, merge
from domainfusion.merging.methods import Candidate, Fit, MergeChoice, MergeMethod, fit

__all__ = [
    "Candidate",
    "Dialogues",
    "Fit",
    "MergeChoice",
    "MergeMethod",
    "Merger",
    "fit",
    "merge",
]
