"""The world of domainfusion's demo: facts, questions and three LoRA experts, in the folder
`world`.
"""
