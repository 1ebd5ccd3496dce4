"""The networks: `ResNeSt.models.resnest.create_model` builds any architecture that has a weight card.

Without torch the package still lists them: `python -m ResNeSt.models`.
"""
