"""LlamaModel: the local model under the name that the specification gives it."""

from __future__ import annotations

from domainfusion.models.huggingface import HuggingFaceModel


class LlamaModel(HuggingFaceModel):
    """A local model of the Llama family, or any other causal language model that Transformers
    loads.

    See `HuggingFaceModel` for the arguments.

    Example:
        ```python
        teacher = LlamaModel(model_path="path/to/biomechanics-expert")
        ```
    """
